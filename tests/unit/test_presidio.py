"""Presidio's recognisers as the redactor runs them."""

import logging
import subprocess
import sys
import time

import pytest

from kaption.adapters.presidio import PresidioRedactor
from kaption.domain.open_suffix import RECOGNISED
from kaption.domain.redaction import mask

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
        "219099990 parts, 4111 1111 1111 1112 of them odd",
        "meet me @ noon, or a@b, or x@y.notadomain",
    ],
)
def test_left_alone(text: str) -> None:
    assert redacted(text) == text


def test_nine_digits_count_where_the_text_says_what_they_are() -> None:
    assert redacted("her social security number is 219099990") == "her social security number is [US_SSN]"
    assert redacted("social security: 2 1 9 0 9 9 9 9 0.") == "social security: [US_SSN]."


def test_digits_behind_a_match_stay() -> None:
    assert redacted("4111 1111 1111 1111 2 times") == "[CREDIT_CARD] 2 times"


def test_other_entities() -> None:
    text = "192.168.1.20 and fe80::1 and 912-70-1234"
    assert redacted(text, ("IP_ADDRESS", "US_ITIN")) == "[IP_ADDRESS] and [IP_ADDRESS] and [US_ITIN]"


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


@pytest.mark.parametrize("piece", ["a.", "a@", "(", "4 ", "4111 ", "DE89", "+1", ":", "@", "a@b.com "])
def test_no_text_of_a_publisher_keeps_it_busy(piece: str) -> None:
    start = time.perf_counter()
    REDACTOR.find(piece * (8192 // len(piece)), POLICY)
    assert time.perf_counter() - start < 10


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
found = redactor.find("to john@example.co.uk, 202-555-0123, 4111 1111 1111 1111", ("EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD"))
assert len(found) == 3, found
assert not [name for name in sys.modules if name.startswith("en_core")]
"""


def test_the_network_is_never_asked() -> None:
    done = subprocess.run([sys.executable, "-c", _OFFLINE], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
