"""Media containers by their first bytes, and whether a file ends before its container says it does.

A fixed list: what is not on it is no media, whatever a library could make of it (playlists name other files and URLs).
"""

from collections.abc import Callable
from typing import BinaryIO
from typing import Final as Const

HEAD_BYTES: Const = 4096
_TAIL_BYTES: Const = 128 << 10
_MOV_BOXES: Const = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_MAGIC: Const = (
    (b"fLaC", "flac"),
    (b"OggS", "ogg"),
    (b"\x1aE\xdf\xa3", "matroska"),
    (b"caff", "caf"),
    (b"#!AMR", "amr"),
    (b".snd", "au"),
    (b"FLV\x01", "flv"),
    (b"0&\xb2u\x8ef\xcf\x11", "asf"),
    (b"\0\0\x01\xba", "mpeg"),
)
_CHUNKED: Const = {b"WAVE": "wav", b"AVI ": "avi", b"AIFF": "aiff", b"AIFC": "aiff"}
#: Sizes that a writer of a stream puts where it can't go back.
_UNKNOWN_SIZES: Const = (0, 0xFFFFFFFF, 0x7FFFFFFF)


def sniff(head: bytes) -> str | None:
    """FFmpeg's demuxer for a file that begins with ``head`` (``HEAD_BYTES`` are enough), None for no known media."""
    if head[:3] == b"ID3":
        inner = head[10 + _id3_size(head) :] if len(head) >= 10 else b""
        return (sniff(inner) if inner[:3] != b"ID3" else None) or "mp3"
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[:4] in (b"RIFF", b"RF64", b"FORM"):
        return _CHUNKED.get(head[8:12])
    if head[4:8] in _MOV_BOXES:
        return "mov"
    if len(head) > 376 and head[0] == head[188] == head[376] == 0x47:
        return "mpegts"
    return _mpeg_audio(head)


def _mpeg_audio(head: bytes) -> str | None:
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    if head[1] & 0xF6 == 0xF0:
        return "aac"
    bad = head[1] & 0x18 == 0x08 or head[1] & 0x06 == 0 or head[2] & 0xF0 == 0xF0 or head[2] & 0x0C == 0x0C
    return None if bad else "mp3"


def _id3_size(head: bytes) -> int:
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return size


def ends_early(file: BinaryIO, name: str, size: int) -> bool:
    """Whether ``file`` of ``size`` bytes, a ``name`` of ``sniff``, was cut off, as far as its structure tells."""
    check = _CHECKS.get(name)
    return check is not None and check(file, size)


def xing_frames(file: BinaryIO) -> int | None:
    """Frames that an MP3's Xing or Info header counts; None without one."""
    head = _at(file, 0, 10)
    start = 10 + _id3_size(head) if head[:3] == b"ID3" else 0
    first = _at(file, start, 256)
    for mark in (b"Xing", b"Info"):
        at = first.find(mark)
        if at >= 0 and len(first) >= at + 12 and first[at + 7] & 1:
            return int.from_bytes(first[at + 8 : at + 12])
    return None


def _at(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)


def _riff(file: BinaryIO, size: int) -> bool:
    if _at(file, 0, 4) == b"RF64":
        return False
    at = 12
    while at + 8 <= size:
        kind, length = _at(file, at, 4), int.from_bytes(_at(file, at + 4, 4), "little")
        if kind == b"data":
            return length not in _UNKNOWN_SIZES and at + 8 + length > size
        at += 8 + length + (length & 1)
    return True  # no samples, or a chunk before them that is cut off


def _avi(file: BinaryIO, size: int) -> bool:
    length = int.from_bytes(_at(file, 4, 4), "little")
    return length not in _UNKNOWN_SIZES and 8 + length > size


def _aiff(file: BinaryIO, size: int) -> bool:
    length = int.from_bytes(_at(file, 4, 4))
    return length not in _UNKNOWN_SIZES and 8 + length > size


def _au(file: BinaryIO, size: int) -> bool:
    start, length = int.from_bytes(_at(file, 4, 4)), int.from_bytes(_at(file, 8, 4))
    return length not in _UNKNOWN_SIZES and start + length > size


def _caf(file: BinaryIO, size: int) -> bool:
    at = 8
    while at + 12 <= size:
        kind, length = _at(file, at, 4), int.from_bytes(_at(file, at + 4, 8), signed=True)
        if length < 0:
            return False  # the last chunk of a stream: up to the end, whatever it is
        at += 12 + length
        if kind == b"data":
            return at > size
    return True


def _mov(file: BinaryIO, size: int) -> bool:
    """Top-level boxes, one after the other; one that passes the end, or no ``moov`` among them, is a cut."""
    at, found = 0, set[bytes]()
    while at + 8 <= size:
        length, kind = int.from_bytes(_at(file, at, 4)), _at(file, at + 4, 4)
        if length == 1:
            length = int.from_bytes(_at(file, at + 8, 8))
        elif length == 0:
            length = size - at
        if length < 8:
            return False
        found.add(kind)
        at += length
    return at > size or b"moov" not in found


def _matroska(file: BinaryIO, size: int) -> bool:
    at = 4
    length, used = _vint(_at(file, at, 8))
    at += used + length
    if _at(file, at, 4) != b"\x18S\x80g":
        return False
    length, used = _vint(_at(file, at + 4, 8))
    unknown = length == (1 << 7 * used) - 1
    return not unknown and at + 4 + used + length > size


def _vint(data: bytes) -> tuple[int, int]:
    """An EBML size and the bytes that it takes."""
    if not data or not data[0]:
        return 0, 1
    used = 9 - data[0].bit_length()
    return int.from_bytes(data[:used]) & ((1 << 7 * used) - 1), used


def _ogg(file: BinaryIO, size: int) -> bool:
    """Whether the last page is incomplete; one that is complete and not marked as last is a recorded stream's."""
    start = max(0, size - _TAIL_BYTES)
    tail = _at(file, start, _TAIL_BYTES)
    at = tail.rfind(b"OggS")
    if at < 0 or len(tail) < at + 27:
        return True
    segments = tail[at + 26]
    table = tail[at + 27 : at + 27 + segments]
    return len(table) < segments or at + 27 + segments + sum(table) > len(tail)


_CHECKS: Const[dict[str, Callable[[BinaryIO, int], bool]]] = {
    "wav": _riff,
    "avi": _avi,
    "aiff": _aiff,
    "au": _au,
    "caf": _caf,
    "mov": _mov,
    "matroska": _matroska,
    "ogg": _ogg,
}
