"""A dead letter fits its topic, whatever the record is, and tells what it left out."""

from dataclasses import replace
from hashlib import sha256

import pytest

from kaption_schemas.codec import Message, Origin, encode_dead_letter
from kaption_schemas.codec.letters import MOST_LETTER, UNDECODABLE
from kaption_schemas.reasons import Reason
from kaption_schemas.topics import DLQ, MIB

ORIGIN = Origin("acme", "acme.media.events.v1", 2, 41, 1000, b"call", b"body", (("a", b"1"), ("a", None)))
AT_MS = 1_795_869_296_123


def dead_letter(origin: Origin, attempts: int = 1) -> Message:
    return encode_dead_letter(origin, Reason.BODY_TOO_LARGE, "fused", AT_MS, attempts=attempts)


def size(origin: Origin) -> int:
    """What the letter takes in a batch of its own, with room for the numbers around each part."""
    letter = dead_letter(origin)
    headers = sum(10 + len(name.encode()) + len(value or b"") for name, value in letter.headers)
    return 200 + len(letter.key or b"") + len(letter.value or b"") + headers


def added(origin: Origin) -> dict[str, str]:
    head = dead_letter(origin).headers
    return {name: (value or b"").decode() for name, value in head if name.startswith("errors.")}


def test_what_fits_is_untouched() -> None:
    letter = dead_letter(ORIGIN, attempts=2)
    assert (letter.key, letter.value, tuple(letter.headers[:2])) == (ORIGIN.key, ORIGIN.value, ORIGIN.headers)
    assert added(ORIGIN) == {
        "errors.topic": "acme.media.events.v1",
        "errors.partition": "2",
        "errors.offset": "41",
        "errors.stage": "fused",
        "errors.reason": "body_too_large",
        "errors.message": Reason.BODY_TOO_LARGE.meaning,
        "errors.attempt": "1",
        "errors.time": "2026-11-28T12:34:56.123+00:00",
    }
    assert ("errors.attempt", b"2") in letter.headers


def test_a_body_that_does_not_fit_is_cut_and_told() -> None:
    body = bytes(range(256)) * (4 * MIB // 256)
    letter = dead_letter(replace(ORIGIN, value=body))
    assert letter.value is not None
    assert len(letter.value) > MOST_LETTER - 1000
    assert body.startswith(letter.value)
    head = dict(letter.headers)
    assert head["errors.body_bytes"] == str(4 * MIB).encode()
    assert head["errors.body_sha256"] == sha256(body).hexdigest().encode()
    assert letter.headers[:2] == [*ORIGIN.headers]


@pytest.mark.parametrize(
    "huge",
    [
        replace(ORIGIN, value=bytes(8 * MIB)),
        replace(ORIGIN, key=bytes(8 * MIB)),
        replace(ORIGIN, headers=(("a", b"1"), ("b", bytes(8 * MIB)))),
        replace(ORIGIN, headers=(("b" * 8 * MIB, None),)),
        replace(ORIGIN, headers=tuple((f"{n}", b"x") for n in range(400_000))),
        replace(ORIGIN, headers=tuple(("ü", None) for n in range(400_000)), key=bytes(MIB), value=bytes(4 * MIB)),
    ],
)
def test_no_letter_is_too_large(huge: Origin) -> None:
    assert size(huge) < DLQ.max_bytes


def test_what_else_is_left_out_is_told() -> None:
    head = added(replace(ORIGIN, headers=(("a", b"1"), ("b", bytes(8 * MIB)), ("c", b""))))
    assert head["errors.headers_left_out"] == "2"
    assert added(replace(ORIGIN, key=bytes(8 * MIB)))["errors.key_bytes"] == str(8 * MIB)


def test_a_batch_is_named_by_its_offsets() -> None:
    letter = dead_letter(replace(ORIGIN, headers=((UNDECODABLE, b"35"),)))
    head = dict(letter.headers)
    assert (head["errors.offset"], head["errors.last_offset"]) == (b"35", b"41")
    assert UNDECODABLE not in head
    assert letter.value == ORIGIN.value
