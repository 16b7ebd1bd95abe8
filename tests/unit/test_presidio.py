"""Presidio's recognisers as the redactor runs them."""

import gc
import logging
import subprocess
import sys
import time
import unicodedata

import pytest

from kaption.adapters.presidio import PresidioRedactor
from kaption.domain.redaction.matches import mask
from kaption.domain.redaction.open_suffix import RECOGNISED
from kaption.domain.redaction.spoken import normalise

POLICY = ("CREDIT_CARD", "EMAIL_ADDRESS", "IBAN_CODE", "PHONE_NUMBER", "US_SSN")
REDACTOR = PresidioRedactor()


def redacted(text: str, entities: tuple[str, ...] = POLICY) -> str:
    return mask(text, REDACTOR.find(text, entities)).text


@pytest.mark.parametrize(
    ("entity", "secret"),
    [
        ("CREDIT_CARD", "4111 1111 1111 1111"),
        ("CREDIT_CARD", "4111, 1111, 1111, 1111"),
        ("CREDIT_CARD", "4111. 1111. 1111. 1111"),
        ("CREDIT_CARD", "4111-1111-1111-1111"),
        ("CREDIT_CARD", "4111111111111111"),
        ("CREDIT_CARD", "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"),
        ("CREDIT_CARD", "4111-11-11-1111-1111"),
        ("CREDIT_CARD", "3782 822463 10005"),
        ("CREDIT_CARD", "4111\u00a01111\u00a01111\u00a01111"),
        (
            "CREDIT_CARD",
            "\u0664\u0661\u0661\u0661 \u0661\u0661\u0661\u0661 \u0661\u0661\u0661\u0661 \u0661\u0661\u0661\u0661",
        ),
        ("PHONE_NUMBER", "202-555-0123"),
        ("PHONE_NUMBER", "(202) 555-0123"),
        ("PHONE_NUMBER", "202, 555, 0123"),
        ("PHONE_NUMBER", "2 0 2 5 5 5 0 1 2 3"),
        ("PHONE_NUMBER", "+1 202 555 0123"),
        ("PHONE_NUMBER", "+44 20 7946 0958"),
        ("PHONE_NUMBER", "+39 06 6982 1234"),
        ("PHONE_NUMBER", "020 7946 0958"),
        ("PHONE_NUMBER", "202.555.0123 ext. 1234"),
        ("EMAIL_ADDRESS", "john.smith+x@mail.example.co.uk"),
        ("IBAN_CODE", "DE89 3704 0044 0532 0130 00"),
        ("IBAN_CODE", "DE89, 3704, 0044, 0532, 0130, 00"),
        ("IBAN_CODE", "GB29NWBK60161331926819"),
        ("US_SSN", "219-09-9990"),
        ("US_SSN", "219, 09, 9990"),
        # As recognised: any signs and words between, pairs, words for digits, and digits that are miscounted, wrong and lost.
        ("CREDIT_CARD", "4111? 1111! 1111\u2026 1111"),
        ("CREDIT_CARD", '4111" \u201c1111\u201d \u2018 1111 \u00b7 1111'),
        ("CREDIT_CARD", "4111\u30011111\u30021111\u060c 1111"),
        ("CREDIT_CARD", "4\ufe0f\u20e31\ufe0f\u20e31\ufe0f\u20e31\ufe0f\u20e3 \u2488\u2474\u2460\u00b9 1111 1111"),
        (
            "CREDIT_CARD",
            "\u56db\u4e00\u4e00\u4e00 \u4e00\u4e00\u4e00\u4e00 \u4e00\u4e00\u4e00\u4e00 \u4e00\u4e00\u4e00\u3007",
        ),
        ("CREDIT_CARD", "4111 1111 um 1111 1111"),
        ("CREDIT_CARD", "4111 1111. Okay. 1111 and then 1111"),
        ("CREDIT_CARD", "4111 dash 1111 dash 1111 dash 1111"),
        ("CREDIT_CARD", "41 11 11 11 11 11 11 11, 12/27"),
        ("CREDIT_CARD", "41 11 11 11 11 11 11 11 ... 123"),
        ("CREDIT_CARD", "four one one one one one one one one one one one one one one one"),
        ("CREDIT_CARD", "forty one eleven, eleven eleven, eleven eleven, eleven eleven"),
        ("CREDIT_CARD", "4 triple 1 1111 double one 11 oh oh 11"),
        ("CREDIT_CARD", "4111 1111 1111 one 111"),
        ("CREDIT_CARD", "4-1-1-1. 1-1-1-1-1. 1-1-1-1. 1-1-1-1-1-1"),
        ("CREDIT_CARD", "4111, 111, 111, 111"),
        ("CREDIT_CARD", "41 11 11 11 11 11 11 11 11"),
        ("CREDIT_CARD", "41111111111111111"),
        ("CREDIT_CARD", "4111 1111 1111 1112"),
        ("CREDIT_CARD", "4111 1111 1111 111"),
        ("CREDIT_CARD", "5893 1234 5678 9012"),
        ("CREDIT_CARD", "2200 1234 5678 9012"),
        ("PHONE_NUMBER", "41 22 33 44"),
        ("PHONE_NUMBER", "077700, 900, 123"),
        ("PHONE_NUMBER", "eight hundred five five five one two three four"),
        ("IBAN_CODE", "de89370400440532013000"),
        ("IBAN_CODE", "De89 3704 0044 0532 0130 01"),
        ("IBAN_CODE", "D E 8 9 3 7 0 4 0 0 4 4 0 5 3 2 0 1 3 0 0 0"),
        ("IBAN_CODE", "D.E. 89, 3704, 0044, 0532, 0130, 00"),
        ("IBAN_CODE", "gb29 nwbk 6016 1331 9268 19"),
        ("IBAN_CODE", "DE89-3704-0044"),
        ("EMAIL_ADDRESS", "john.doe at gmail.com"),
        ("EMAIL_ADDRESS", "john.doe @ gmail.com"),
        ("EMAIL_ADDRESS", "john.doe@ gmail.com"),
        ("EMAIL_ADDRESS", "john.doe@gmail. com"),
        ("EMAIL_ADDRESS", "john.doe@server.internal"),
        ("EMAIL_ADDRESS", "john.doe@localhost"),
        ("EMAIL_ADDRESS", "john dot smith at gmail dot com"),
        ("EMAIL_ADDRESS", "j o h n underscore smith ninety nine at example dot co dot uk"),
        ("EMAIL_ADDRESS", "JOHN underscore smith99 at example.co.uk"),
    ],
)
def test_found_within_a_sentence_and_at_its_end(entity: str, secret: str) -> None:
    assert redacted(f"Well, it is {secret} and that is all.") == f"Well, it is [{entity}] and that is all."
    assert redacted(f"Well, it is {secret}.") == f"Well, it is [{entity}]."
    assert redacted(f"Well, it is {secret}.", ()) == f"Well, it is {secret}."


@pytest.mark.parametrize(
    "text",
    [
        "I paid 1,234,567 dollars in 2019, 2020, 2021 and 2022.",
        "Take 20, 25, 30, 35, 40 of them between 2010-2015, at 10:30 on 12/11/2020.",
        "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16",
        "one, two, three, four, five, six, seven, eight, nine, ten",
        "It was built in nineteen eighty four and in 1984, room 4071, for $12,500 or 3.5% more.",
        "two hundred and fifty three thousand four hundred and twenty one people",
        "The zip code is 90210-1234, and ours is SW12 9AA.",
        "between 1984 and 2010, or at 10:30, 11:45, 12:15, at 192.168.1.20, or 3, 14 and 27",
        "MP3 and x12345678y and 550e8400-e29b-41d4-a716-446655440000 at 2026-11-28T11:32:57Z",
        "meet me @ noon, or follow @kaption, or reach me at example.com, at the office",
        "we looked at it. So we left at ten. One of us was at home, dot.",
    ],
)
def test_left_alone(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("gate B12. 4155550132.", "gate B12. [PHONE_NUMBER]."),
        ("the code is A1 4111 1111 1111 1112, yes", "the code is A1 [CREDIT_CARD], yes"),
        ("4111 1111 1111 1112 3D is it", "[CREDIT_CARD]D is it"),
        ("4111 1111 1111 1112 5a6", "[CREDIT_CARD] 5a6"),
        ("202 555 0123 10minutes ago", "[PHONE_NUMBER] 10minutes ago"),
        ("O7700 900123 it is", "O[PHONE_NUMBER] it is"),
        ("202 555 0123, x12345678y", "[PHONE_NUMBER], x12345678y"),
        ("550e8400-e29b-41d4-a716-446655440000 4111 1111 1111 1112", "550e8400-e29b-41d4-a716-446655440000 [CREDIT_CARD]"),
        ("4111 1111 1111 1112 550e8400-e29b-41d4-a716-446655440000", "[CREDIT_CARD] 550e8400-e29b-41d4-a716-446655440000"),
        ("MP3, 1984 and 2010", "MP3, 1984 and 2010"),
    ],
)  # fmt: skip
def test_a_name_with_digits_hides_no_number_beside_it(text: str, masked: str) -> None:
    assert redacted(text) == masked


def test_a_list_of_small_numbers_is_none_where_the_text_says_what_it_is() -> None:
    assert redacted("there were 14, 27 and 35, 46, 58 of them") == "there were 14, 27 and 35, 46, 58 of them"
    assert redacted("my phone is 14, 27, 35, 46, 58 now") == "my phone is [PHONE_NUMBER] now"


def test_nine_digits_are_a_social_security_number_and_one_may_be_lost_where_the_text_says_so() -> None:
    assert redacted("her social security number is 219099990") == "her social security number is [US_SSN]"
    assert redacted("social security: 2 1 9 0 9 9 9 9 0.") == "social security: [US_SSN]."
    assert redacted("it is 219099990 then", ("US_SSN",)) == "it is [US_SSN] then"
    assert redacted("social security 21909999 then", ("US_SSN",)) == "social security [US_SSN] then"


def test_who_counts_gives_no_number_but_where_the_text_says_so() -> None:
    assert redacted("we go 9 8 7 6 5 4 3 2 now") == "we go 9 8 7 6 5 4 3 2 now"
    assert redacted("my phone is 9 8 7 6 5 4 3 2 now") == "my phone is [PHONE_NUMBER] now"


@pytest.mark.parametrize("name", ["jane@", "jane at ", "jane dot doe at "])
def test_an_apostrophe_ends_a_domain(name: str) -> None:
    assert redacted(f"it is {name}example.com's turn") == "it is [EMAIL_ADDRESS]'s turn"


def test_a_run_is_masked_whole() -> None:
    assert redacted("4111 1111 1111 1111 2 times") == "[CREDIT_CARD] times"


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("\u6211\u7684\u5361\u53f7\u662f4111111111111111\u8c22\u8c22", "CREDIT_CARD"),
        ("\u30ab\u30fc\u30c9\u756a\u53f7\u306f4111-1111-1111-1111\u3067\u3059", "CREDIT_CARD"),
        ("\u0e1a\u0e31\u0e15\u0e234111111111111111\u0e04\u0e23\u0e31\u0e1a", "CREDIT_CARD"),
        ("\uce74\ub4dc\ubc88\ud638\ub294 4111 1111 1111 1111\uc785\ub2c8\ub2e4", "CREDIT_CARD"),
        ("\u8d26\u53f7\u662fDE89370400440532013000\u8c22\u8c22", "IBAN_CODE"),
        ("\u53f7\u7801\u662f219-09-9990\u8c22\u8c22", "US_SSN"),
        ("kart\u0131m 4111 1111 1111 1111'dir", "CREDIT_CARD"),
        ("kortti 4111111111111111on", "CREDIT_CARD"),
    ],
)
def test_scripts_without_spaces_and_endings(text: str, label: str) -> None:
    found = redacted(text)
    assert f"[{label}]" in found
    assert not any(map(str.isdigit, found))


def test_any_sign_may_part_a_number() -> None:
    """Whatever its block: the middle dot of Katakana and a stop of Khmer stand among their letters."""
    signs = [char for char in map(chr, range(0x10000)) if unicodedata.category(char)[0] in "PSZ"]
    signs = [sign for sign in signs if not normalise(sign).isalnum()]  # not an encircled letter
    assert len(signs) > 3000
    shown = [sign for sign in signs if "1" in redacted(sign.join(["4111", "1111", "1111", "1111"]))]
    assert shown == []


def test_other_entities() -> None:
    text = "192.168.1.20 or fe80::1 or 912-70-1234"
    assert redacted(text, ("IP_ADDRESS", "US_ITIN")) == "[IP_ADDRESS] or [IP_ADDRESS] or [US_ITIN]"


def test_every_entity_of_the_policy_has_a_recogniser() -> None:
    assert REDACTOR.find("nothing here, 12", tuple(RECOGNISED)) == ()
    with pytest.raises(ValueError, match="PERSON"):
        REDACTOR.find("x", ("PERSON",))


def test_fast_enough_for_every_partial() -> None:
    text = ("my card is 4111 1111 1111 1111, call 202-555-0123 or write to john@example.com after 10:30; " * 4)[:300]
    took = []
    for _ in range(20):
        start = time.perf_counter()
        REDACTOR.find(text, POLICY)
        REDACTOR.open_suffix(text, POLICY)
        took.append(time.perf_counter() - start)
    assert min(took) < 0.004


_PIECES = ["a.", "a@", "(", "4_", "4111_", "DE89", "+1", ":", "@", "a@b.com_", "a@b.c", "1,", "a@b.", "at_", "dot_", "j_o_", "one_", "double_", "um_", "4_um_", "AA11", "f:", "1.1.1.1_", "hundred_", "202_555_0123,_", "x1234567y_", "john_at_gmail_dot_com_", "D_E_8_9_", "2019,_"]  # fmt: skip


def _took(text: str) -> float:
    start = time.process_time()
    REDACTOR.find(text, tuple(RECOGNISED))
    REDACTOR.open_suffix(text, tuple(RECOGNISED))
    return time.process_time() - start


@pytest.mark.parametrize("piece", [piece.replace("_", " ") for piece in _PIECES])
def test_time_grows_as_a_text_does(piece: str) -> None:
    """Twice the length costs at most some 2.5 times, and the longest that a record may hold well under two seconds."""
    short, long = (piece * (size // len(piece)) for size in (8_000, 16_000))
    gc.disable()
    try:
        assert any(_took(long) < 2.5 * _took(short) for _ in range(9)), "one undisturbed measurement is enough"
    finally:
        gc.enable()
    assert _took(piece * (65_536 // len(piece))) < 2


def test_nothing_said_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    redacted("canary 4111 1111 1111 1111 canary@example.com DE89 3704 0044 0532 0130 00 202-555-0123")
    assert "canary" not in caplog.text
    assert "4111" not in caplog.text


_OFFLINE = """
import sys
def refuse(event, arguments):
    if event in {"socket.connect", "socket.getaddrinfo"}:
        raise SystemExit(f"network: {event}")
sys.addaudithook(refuse)
from kaption.adapters.presidio import PresidioRedactor
redactor = PresidioRedactor()
found = redactor.find("to john@example.co.uk, 202-555-0123 or 4111 1111 1111 1111", ("EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD"))
assert len(found) == 3, found
assert not [name for name in sys.modules if name.startswith("en_core")]
"""


def test_the_network_is_never_asked() -> None:
    done = subprocess.run([sys.executable, "-c", _OFFLINE], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
