"""Where a text's open suffix begins."""

import pytest

from kaption.domain.redaction.open_suffix import RECOGNISED, open_suffix
from kaption.domain.redaction.spoken import normalise, scan

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
        ("my card is four one", "four one"),
        ("my card is fo", "fo"),
        ("my card is double", "double"),
        ("my card is 4111 um and then", "4111 um and then"),
        ("my card is 4111 um and then so so the", ""),
        ("my card is 4111 an", "4111 an"),
        ("my iban is D", "D"),
        ("my iban is d e ", "d e "),
        ("my iban is de", "de"),
        ("DE89, 3704, ", "DE89, 3704, "),
        ("DE89 3704 M", "DE89 3704 M"),
        ("DE89 3704 My", "DE89 3704 My"),
        ("DE89 3704 My name", ""),
        ("to the", ""),
        ("ALL OF THIS IS", "IS"),
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
        ("write to john, ", "john, "),
        ("write to john\u3053", "john\u3053"),
        ("write to (john@exam", "john@exam"),
        ("write to jos\u00e9_m+x@", "jos\u00e9_m+x@"),
        ("write to john dot", "john dot"),
        ("write to john dot smith at", "john dot smith at"),
        ("write to john at gmail", "john at gmail"),
        ("write to john at gmail dot c", "john at gmail dot c"),
        ("write to j o h n", "j o h n"),
        ("we met john at the", "john at the"),
        ("we met john at the office", "office"),
        ("reach me at the", "the"),
        ("\u79c1\u306e\u30e1\u30fc\u30eb\u306fjohn", "john"),
        ("\u79c1\u306e\u3053\u3068", ""),
    ],
)
def test_address(text: str, suffix: str) -> None:
    assert held(text, "EMAIL_ADDRESS") == suffix


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
    assert normalise(text) == "41 -- x\ufb01"
    assert len(normalise(text)) == len(text)


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("it's four double one one triple one oh two four", "4111111024"),
        ("nineteen eighty-four", "1984"),
        ("two hundred and fifty three thousand and one", "253001"),
        ("3 hundred", "300"),
        ("4double11, triple 1 0 2", "4111111102"),
        ("gb29 nwbk 6016", "296016"),
        ("\u2488\u2474\u2460\u00b9\u4e00\u3007", "111110"),
    ],
)
def test_digits_of_what_is_said(text: str, digits: str) -> None:
    [run] = scan(normalise(text)).runs
    assert run.digits == digits


def test_tens_and_a_unit_may_be_two_numbers() -> None:
    [run] = scan("twenty one ninety four four eight oh one").runs
    assert (run.digits, run.count) == ("21944801", 10)


def test_long_odd_texts_take_no_time() -> None:
    for piece in ("(", "4 ", "+", "@", "a@", "A1", "DE89", "ext ", "4,", ":", "."):
        text = piece * (20_000 // len(piece))
        assert 0 <= open_suffix(text, EVERY) <= len(text)
