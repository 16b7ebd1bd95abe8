"""Where a text's open suffix begins."""

import pytest

from kaption.domain import numbers
from kaption.domain.open_suffix import RECOGNISED, open_suffix

NUMBER = ("CREDIT_CARD",)
EVERY = tuple(sorted(RECOGNISED))


def held(text: str, *entities: str) -> str:
    return text[open_suffix(text, entities) :]


@pytest.mark.parametrize(
    ("text", "suffix"),
    [
        ("", ""),
        ("my card is", ""),
        ("my card is 4", "4"),
        ("my card is 4111 1111", "4111 1111"),
        ("my card is 4111, 1111, ", "4111, 1111, "),
        ("my card is 4111-1111-", "4111-1111-"),
        ("my card is 4111\u00a01111", "4111\u00a01111"),
        ("my card is \u0664\u0661\u0661", "\u0664\u0661\u0661"),
        ("4111 1111 1111 1111 2", "4111 1111 1111 1111 2"),
        ("4111 1111 1111 1111 is", ""),
        ("call (202) 555", "(202) 555"),
        ("call +44 (0)20", "+44 (0)20"),
        ("call (", "("),
        ("202-555-0123 ex", "202-555-0123 ex"),
        ("202-555-0123 ext. 12", "202-555-0123 ext. 12"),
        ("202-555-0123 every", ""),
        ("an MP3", "3"),
        ("an MP3 file", ""),
    ],
)
def test_number(text: str, suffix: str) -> None:
    assert held(text, "CREDIT_CARD") == held(text, "PHONE_NUMBER") == held(text, "US_SSN") == suffix


@pytest.mark.parametrize(
    ("text", "suffix"),
    [
        ("write to john", "john"),
        ("write to john.", "john."),
        ("write to john,", ""),
        ("write to john ", ""),
        ("write to (john@exam", "john@exam"),
        ("write to jos\u00e9_m+x@", "jos\u00e9_m+x@"),
        ("\u79c1\u306e\u30e1\u30fc\u30eb\u306fjohn", "john"),
        ("\u79c1\u306e\u3053\u3068", ""),
    ],
)
def test_address(text: str, suffix: str) -> None:
    assert held(text, "EMAIL_ADDRESS") == suffix


@pytest.mark.parametrize(
    ("text", "suffix"),
    [
        ("to D", "D"),
        ("to DE", "DE"),
        ("to DE8", "DE8"),
        ("to DE89, 3704, ", "DE89, 3704, "),
        ("to DE89 3704 M", "DE89 3704 M"),
        ("to DE89 3704 My", ""),
        ("to the", ""),
        ("at 1234", ""),
        ("ALL OF THIS IS", "IS"),
        ("IS 12 " + "MANY WORDS " * 8, ""),
    ],
)
def test_iban(text: str, suffix: str) -> None:
    assert held(text, "IBAN_CODE") == suffix


@pytest.mark.parametrize(
    ("text", "suffix"), [("at 192.168.", "192.168."), ("at fe80::1%eth0", "fe80::1%eth0"), ("at home", "")]
)
def test_ip(text: str, suffix: str) -> None:
    # "e" of "home" is a hexadecimal digit too, so the last letters wait for the next word.
    assert held(text, "IP_ADDRESS").removeprefix("e" if text == "at home" else "") == suffix


def test_no_policy_holds_nothing() -> None:
    assert held("4111 1111") == ""


def test_an_unknown_entity_is_refused() -> None:
    with pytest.raises(KeyError):
        open_suffix("x", ("PERSON",))


def test_where_it_begins_never_moves_back_as_a_number_grows() -> None:
    text = "so 4111, 1111. (1111) 1111 ext 22"
    assert {open_suffix(text[:k], NUMBER) for k in range(4, len(text) + 1)} == {3}


def test_normalise_keeps_every_position() -> None:
    text = "\uff14\u0661\u00a0\u2011\u200b\u2003x\ufb01"
    assert numbers.normalise(text) == "41 -- x\ufb01"
    assert len(numbers.normalise(text)) == len(text)


def test_collapse_says_where_each_character_was() -> None:
    text = "4111, 1111 - 22"
    short, where = numbers.collapse(text)
    assert short == "4111 1111 22"
    assert [text[at] for at in where[:-1] if text[at].isdigit()] == [c for c in short if c.isdigit()]
    assert where[-1] == len(text)


def test_cards_in_lists_of_small_numbers_are_not_looked_for() -> None:
    for text in (", ".join(map(str, range(1, 40))), "2019, 2020, 2021, 2022", "3 14 1 59 2 65 3 58 9 79 3"):
        assert numbers.cards(text, numbers.runs(text)) == ()


def test_long_odd_texts_take_no_time() -> None:
    for piece in ("(", "4 ", "+", "@", "a@", "A1", "DE89", "ext ", "4,", ":", "."):
        text = piece * (20_000 // len(piece))
        assert 0 <= open_suffix(text, EVERY) <= len(text)
