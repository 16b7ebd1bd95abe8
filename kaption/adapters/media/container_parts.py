"""Finds where a file's recordings begin and end, and whether the file is truncated, from its structure.

Sizes are hints: a writer that can't seek back to the header leaves a very large one, others count a header twice. Files that
are concatenated are several parts. It reads a bounded number of headers and nothing else, so a large file costs little.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO
from typing import Final as Const

from kaption.adapters.media.containers import MAX_RATE, MIN_RATE, Found, read_at
from kaption_schemas.errors import RefusedError
from kaption_schemas.reasons import Reason

_MOST_CHUNKS: Const = 10_000
#: Most boxes of a file. A fragmented MP4 of six hours has one or two per second, and a few more.
_MOST_BOXES: Const = 100_000
_MOST_PARTS: Const = 1000
_MOST_EDITS: Const = 1000
_BLOCK_BYTES: Const = 1 << 20
_TAIL_BYTES: Const = 128 << 10
#: Bytes that a header may claim beyond the file: its writer may have counted a header twice.
_SLACK_BYTES: Const = 4096
_LEAST_SLACK_BYTES: Const = 64
#: Bytes after the sound that are neither a chunk nor sound.
_JUNK_BYTES: Const = 4096
_UNKNOWN_64_BITS: Const = 1 << 63
#: Matroska: what holds what on the way to a track's rate (Segment, Tracks, TrackEntry, Audio, SamplingFrequency), and where sound begins.
_TO_RATE: Const = (b"\x18S\x80g", b"\x16T\xaek", b"\xae", b"\xe1", b"\xb5")
_CLUSTER: Const = b"\x1fC\xb6u"
_FLOATS: Const = {4: ">f", 8: ">d"}
_MOST_HERTZ: Const = 0x7FFFFFFF


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes ``[start, end)`` of a file that are one recording. ``to_end``: the header's size of the sound is not reliable."""

    start: int
    end: int
    to_end: bool = False


def parts(file: BinaryIO, found: Found, size: int) -> list[Part]:
    """Return the recordings in ``file`` of ``size`` bytes, in order.

    Raises ``RefusedError`` if the file is truncated, or its structure has no end.
    """
    made = _WALKS.get(found.kind, _whole)(file, found.start, size)
    out: list[Part] = []
    for part in made:
        if len(out) == _MOST_PARTS:
            raise RefusedError(Reason.DECODE_LIMIT, f"{found.kind}: over {_MOST_PARTS} recordings in one file")
        out.append(part)
    return out


def _whole(_: BinaryIO, start: int, size: int) -> Iterator[Part]:
    yield Part(start, size)


def _cut(kind: str, claimed: int, there: int) -> RefusedError:
    return RefusedError(Reason.TRUNCATED, f"{kind}: {there} bytes of {claimed}")


def _is_unknown(length: int) -> bool:
    """Whether a 32-bit size is a placeholder of a writer that can't seek back: 0, or close to 2 or 4 GiB."""
    return length == 0 or 0x7FFF0000 <= length < 0x80010000 or 0xFFFF0000 <= length <= 0xFFFFFFFF


def _lacks(claimed: int, there: int) -> bool:
    """Whether more is missing than a writer's miscount explains."""
    return claimed - there > min(_SLACK_BYTES, max(_LEAST_SLACK_BYTES, claimed // 100))


def _marks(file: BinaryIO, mark: bytes, start: int, size: int) -> Iterator[int]:
    """Yield the positions of ``mark`` in ``[start, size)``."""
    block, at = b"", start
    while at < size:
        file.seek(at)
        more = file.read(_BLOCK_BYTES)
        if not more:
            return
        block, base = block + more, at - len(block)
        found = block.find(mark)
        while found >= 0:
            yield base + found
            found = block.find(mark, found + 1)
        at += len(more)
        block = block[len(block) - len(mark) + 1 :]


# -- RIFF ------------------------------------------------------------------------------------------------------------


def _wav(file: BinaryIO, start: int, size: int) -> Iterator[Part]:
    begin: int | None = start
    budget = iter(range(_MOST_CHUNKS))  # of the whole file
    while begin is not None:
        sound, claimed = _sound(file, begin, size, budget)
        there = size - sound
        if claimed > there or claimed == 0 < there:
            if not _is_unknown(claimed) and _lacks(claimed, there):
                raise _cut("wav", claimed, there)
            followed, after = _behind(file, sound, size, budget) if claimed == 0 else (False, None)
            if not followed:
                after = _next_wav(file, sound, size)
            yield Part(begin, sound if followed else after or size, to_end=True)
        else:
            followed, after = _behind(file, sound + claimed, size, budget)
            yield Part(begin, after or size, to_end=not followed and there - claimed > _JUNK_BYTES)
        begin = after


def _sound(file: BinaryIO, begin: int, size: int, budget: Iterator[int]) -> tuple[int, int]:
    """Return where a WAV's samples begin, and their size in bytes by the header."""
    at, wide = begin + 12, 0
    for _ in budget:
        head = read_at(file, at, 24)
        if at + 8 > size:
            raise RefusedError(Reason.TRUNCATED, f"wav: no samples in {size} bytes")
        kind, length = head[:4], int.from_bytes(head[4:8], "little")
        if kind == b"data":
            return at + 8, wide if length == 0xFFFFFFFF and 0 < wide < _UNKNOWN_64_BITS else length
        if kind == b"ds64":
            wide = int.from_bytes(head[16:24], "little")
        if kind == b"fmt " and at + 8 + length <= size:
            rate = int.from_bytes(head[12:16], "little")
            if not MIN_RATE <= rate <= MAX_RATE:
                raise RefusedError(Reason.UNSUPPORTED_FORMAT, f"wav: a rate of {rate} Hz")
        at += 8 + length + (length & 1)
    raise RefusedError(Reason.DECODE_LIMIT, f"wav: over {_MOST_CHUNKS} chunks before the sound")


def _behind(file: BinaryIO, end: int, size: int, budget: Iterator[int]) -> tuple[bool, int | None]:
    """Return whether samples end at ``end``, since chunks or nothing follow; and where the next WAV begins, if any."""
    for at in (end + (end & 1), end):  # some writers do not pad
        chunks, after = _chunks(file, at, size, budget)
        if chunks:
            return True, after
    return False, None


def _chunks(file: BinaryIO, at: int, size: int, budget: Iterator[int]) -> tuple[int, int | None]:
    """Count the consecutive chunks from ``at``, the file's end as one; and return where a WAV follows them, if any."""
    for count, _ in enumerate(budget):
        if at >= size:
            return count + 1, None
        head = read_at(file, at, 12)
        if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
            return count + 1, at
        length = int.from_bytes(head[4:8], "little")
        if len(head) < 8 or not all(0x20 <= byte < 0x7F for byte in head[:4]) or at + 8 + length > size:
            return count, None
        at += 8 + length + (length & 1)
    raise RefusedError(Reason.DECODE_LIMIT, f"wav: over {_MOST_CHUNKS} chunks behind the sound")


def _next_wav(file: BinaryIO, start: int, size: int) -> int | None:
    """Return where another WAV begins in samples of unknown length."""
    for at in _marks(file, b"WAVEfmt ", start, size):
        if read_at(file, at - 8, 4) in (b"RIFF", b"RF64", b"BW64"):
            return at - 8
    return None


# -- sizes in the first header ---------------------------------------------------------------------------------------


def _avi(file: BinaryIO, start: int, size: int) -> Iterator[Part]:
    return _sized("avi", int.from_bytes(read_at(file, start + 4, 4), "little"), start, 8, size)


def _aiff(file: BinaryIO, start: int, size: int) -> Iterator[Part]:
    return _sized("aiff", int.from_bytes(read_at(file, start + 4, 4)), start, 8, size)


def _au(file: BinaryIO, start: int, size: int) -> Iterator[Part]:
    header, length = int.from_bytes(read_at(file, start + 4, 4)), int.from_bytes(read_at(file, start + 8, 4))
    return _sized("au", length, start, header, size)


def _sized(kind: str, length: int, start: int, header: int, size: int) -> Iterator[Part]:
    there = size - start - header
    if not _is_unknown(length) and _lacks(length, there):
        raise _cut(kind, length, there)
    yield Part(start, size)


# -- CAF, MOV and MP4 ------------------------------------------------------------------------------------------------


def _caf(file: BinaryIO, start: int, size: int) -> Iterator[Part]:
    at = start + 8
    for _ in range(_MOST_CHUNKS):
        if at + 12 > size:
            raise RefusedError(Reason.TRUNCATED, f"caf: no samples in {size} bytes")
        head = read_at(file, at, 12)
        length = int.from_bytes(head[4:], signed=True)
        if length < 0:
            break  # the last chunk of a stream goes to the end
        at += 12 + length
        if head[:4] == b"data":
            if at > size:
                raise _cut("caf", length, length - (at - size))
            break
    else:
        raise RefusedError(Reason.DECODE_LIMIT, f"caf: over {_MOST_CHUNKS} chunks before the sound")
    yield Part(start, size)


def _mov(file: BinaryIO, start: int, size: int) -> Iterator[Part]:
    """Read the top-level boxes; if one passes the end, or none is ``moov``, the file is truncated."""
    boxes, begin, described, edits = _Boxes(file), start, False, 0
    for at, kind, body, end in boxes.within(start, size):
        if kind == b"ftyp" and described:
            yield Part(begin, at)
            begin, described, edits = at, False, 0
        if kind == b"moov":
            described = True
            edits += boxes.edits(body, min(end, size))
            if edits > _MOST_EDITS:
                raise RefusedError(Reason.DECODE_LIMIT, f"mov: an edit list of {edits} entries")
        if end > size:
            raise _cut("mov", end - at, size - at)
    if not described:
        raise RefusedError(Reason.TRUNCATED, f"mov: no index in {size - begin} bytes")
    yield Part(begin, size)


class _Boxes:
    """Reads and counts the boxes of one file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._count = file, 0

    def within(self, at: int, limit: int) -> Iterator[tuple[int, bytes, int, int]]:
        """Yield the boxes in ``[at, limit)``: the start, the kind, the body's start, and the end that the box claims."""
        while at + 8 <= limit:
            self._count += 1
            if self._count > _MOST_BOXES:
                raise RefusedError(Reason.DECODE_LIMIT, f"mov: over {_MOST_BOXES} boxes")
            head = read_at(self._file, at, 16)
            length, body = int.from_bytes(head[:4]), at + 8
            if length == 1:
                length, body = int.from_bytes(head[8:]), at + 16
            elif length == 0:
                length = limit - at
            if length < body - at:
                return  # no box
            yield at, head[4:8], body, at + length
            at += length

    def edits(self, start: int, end: int, inside: tuple[bytes, ...] = (b"trak", b"edts")) -> int:
        """Count the entries of edit lists in a ``moov``. A demuxer expands the index for each."""
        count = 0
        for _, kind, body, last in self.within(start, end):
            if kind == b"cmov":
                raise RefusedError(Reason.NOT_MEDIA, "mov: a compressed index")
            if inside and kind == inside[0]:
                count += self.edits(body, min(last, end), inside[1:])
            elif not inside and kind == b"elst":
                count += int.from_bytes(read_at(self._file, body + 4, 4))
        return count


# -- marks -----------------------------------------------------------------------------------------------------------


def _matroska(file: BinaryIO, start: int, size: int) -> Iterator[Part]:
    begin, budget = start, iter(range(_MOST_BOXES))  # of the whole file
    for at in _marks(file, b"\x1aE\xdf\xa3", start + 4, size):
        head = read_at(file, at, 64)
        if b"\x42\x82\x84webm" in head or b"\x42\x82\x88matroska" in head:
            _has_rates(file, begin, at, budget)
            yield Part(begin, at)
            begin = at
    at = begin + 4
    length, used = _vint(read_at(file, at, 8))
    at += used + length
    if read_at(file, at, 4) == b"\x18S\x80g":
        length, used = _vint(read_at(file, at + 4, 8))
        there = size - at - 4 - used
        if length != (1 << 7 * used) - 1 and length > there:
            raise _cut("matroska", length, there)
    _has_rates(file, begin, size, budget)
    yield Part(begin, size)


def _has_rates(
    file: BinaryIO, start: int, end: int, budget: Iterator[int], inside: tuple[bytes, ...] = _TO_RATE
) -> None:
    """Refuse rates that are none: FFmpeg takes 8,000 Hz for them (HAZARDS, PyAV 4). Of other rates a decoder may know better."""
    for kind, body, last in _elements(file, start, end, budget):
        if kind == _CLUSTER:
            return  # sound; the tracks stand before it
        if kind != inside[0]:
            continue
        if len(inside) > 1:
            _has_rates(file, body, last, budget, inside[1:])
        elif last - body in _FLOATS:
            (rate,) = struct.unpack(_FLOATS[last - body], read_at(file, body, last - body))
            if not 0 <= rate <= _MOST_HERTZ:
                raise RefusedError(Reason.UNSUPPORTED_FORMAT, f"matroska: a rate of {rate:g} Hz at byte {body}")


def _elements(file: BinaryIO, at: int, limit: int, budget: Iterator[int]) -> Iterator[tuple[bytes, int, int]]:
    """EBML elements that lie in ``[at, limit)`` whole: the kind of each, where its body begins and where it ends."""
    for _ in budget:
        head = read_at(file, at, 12)
        kind = head[: _vint(head)[1]]
        length, used = _vint(head[len(kind) :])
        body = at + len(kind) + used
        end = limit if length == (1 << 7 * used) - 1 else body + length
        if body > limit or end > limit:
            return
        yield kind, body, end
        at = end
    raise RefusedError(Reason.DECODE_LIMIT, f"matroska: over {_MOST_BOXES} elements before the sound")


def _vint(data: bytes) -> tuple[int, int]:
    """Return an EBML size and the number of bytes that encode it."""
    if not data or not data[0]:
        return 0, 1
    used = 9 - data[0].bit_length()
    return int.from_bytes(data[:used]) & ((1 << 7 * used) - 1), used


def _flac(file: BinaryIO, start: int, size: int) -> Iterator[Part]:
    begin = start
    for at in _marks(file, b"fLaC", start + 4, size):
        if read_at(file, at + 4, 4) in (b"\0\0\0\x22", b"\x80\0\0\x22"):
            yield Part(begin, at)
            begin = at
    yield Part(begin, size)


def _ogg(file: BinaryIO, start: int, size: int) -> Iterator[Part]:
    """Yield the links of a chain: each begins with a first page that does not follow another first page.

    An incomplete last page means a truncated file. A complete one without the mark of a last page is from a recorded stream.
    """
    begin, beside = start, start
    for at in _marks(file, b"OggS\0\x02", start, size):
        if at not in (start, beside):
            yield Part(begin, at)
            begin = at
        beside = at + _page(read_at(file, at, 282))
    last = max(start, size - _TAIL_BYTES)
    tail = read_at(file, last, _TAIL_BYTES)
    at = tail.rfind(b"OggS")
    length = _page(tail[at:]) if at >= 0 else 0
    if not length or at + length > len(tail):
        raise _cut("ogg", length, len(tail) - max(at, 0))
    yield Part(begin, size)


def _page(data: bytes) -> int:
    """Return the size in bytes of the page at the start of ``data``; 0 if its header is truncated."""
    if len(data) < 27 or len(data) < 27 + data[26]:
        return 0
    return 27 + data[26] + sum(data[27 : 27 + data[26]])


_WALKS: Const[dict[str, Callable[[BinaryIO, int, int], Iterator[Part]]]] = {
    "wav": _wav,
    "avi": _avi,
    "aiff": _aiff,
    "au": _au,
    "caf": _caf,
    "mov": _mov,
    "matroska": _matroska,
    "flac": _flac,
    "ogg": _ogg,
}
