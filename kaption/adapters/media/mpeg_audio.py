"""Finds frames of MPEG audio (layers I to III) and ADTS in files that are bare streams of them, and reads Xing headers."""

import re
from dataclasses import dataclass
from typing import BinaryIO
from typing import Final as Const

#: Frames in a row that prove MPEG audio; bytes that look like a header once are no proof.
_CHAIN: Const = 4
_SYNC: Const = re.compile(rb"\xff[\xe2-\xff]")
_KBITS: Const = {
    # By (MPEG-1, layer): the bit rates of ISO 11172-3 and 13818-3, 0 for the free one.
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES: Const = (44_100, 48_000, 32_000)
_ADTS_RATES: Const = 13


@dataclass(frozen=True, slots=True)
class _Frame:
    """One frame: FFmpeg's demuxer, its bytes, samples and rate (0 in ADTS), and the header bits that the next one shares."""

    kind: str
    size: int
    samples: int
    rate: int
    alike: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Counted:
    """The count of a Xing or Info header: ``seconds`` of sound; up to ``slack`` of them are an encoder's delay and padding."""

    seconds: float
    slack: float


def first_frame(data: bytes, *, whole: bool) -> tuple[str, int] | None:
    """Return the demuxer for bare frames in ``data`` and the offset of the first; None if there are none.

    ``whole``: the file ends with ``data``, so fewer frames than otherwise required may be all.
    """
    for sync in _SYNC.finditer(data):
        at = sync.start()
        frame = _frame(data, at)
        if frame is not None and _chained(data, at, frame, whole=whole):
            return frame.kind, at
    return None


def counted(file: BinaryIO, start: int) -> Counted | None:
    """Read the Xing or Info header in the frame at ``start``; None without one."""
    file.seek(start)
    data = file.read(256)
    frame = _frame(data, 0)
    for mark in (b"Xing", b"Info"):
        at = data.find(mark)
        if frame is not None and frame.rate and 0 <= at <= len(data) - 12 and data[at + 7] & 1:
            count = int.from_bytes(data[at + 8 : at + 12])
            return Counted(count * frame.samples / frame.rate, 3 * frame.samples / frame.rate)
    return None


def _chained(data: bytes, at: int, first: _Frame, *, whole: bool) -> bool:
    frame: _Frame | None = first
    for _ in range(_CHAIN):
        if frame is None or frame.alike != first.alike:
            return False
        at += frame.size
        if at + 7 > len(data):  # the last frame may be truncated, and a tag may follow it
            return whole
        if whole and data[at : at + 3] == b"TAG":
            return True
        frame = _frame(data, at)
    return True


def _frame(data: bytes, at: int) -> _Frame | None:
    """Parse the frame header at ``at``; None if there is none, or for the free bit rate, which decoders do not support."""
    head = data[at : at + 7]
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    if head[1] & 0xF6 == 0xF0:
        size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
        known = size > 7 and head[2] >> 2 & 0x0F < _ADTS_RATES
        return _Frame("aac", size, 1024, 0, (head[1] & 0xF6, head[2] & 0xFC)) if known else None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bits, rates = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or bits in (0, 15) or rates == 3:
        return None
    first = version == 3
    rate = _RATES[rates] >> (0 if first else 1 if version == 2 else 2)
    samples = 384 if layer == 1 else 576 if layer == 3 and not first else 1152
    kbits, padding = _KBITS[first, layer][bits], head[2] >> 1 & 1
    slot = 4 if layer == 1 else 1
    size = (samples // 8 // slot * kbits * 1000 // rate + padding) * slot
    return _Frame("mp3", size, samples, rate, (head[1] & 0xFE, head[2] & 0x0C))
