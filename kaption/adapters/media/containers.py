"""Recognises media containers by their first bytes. ``container_parts`` finds their extent and whether they are whole.

The list is fixed: other files are no media, even if a library could read them. Playlists name other files and URLs.
"""

from dataclasses import dataclass
from typing import BinaryIO
from typing import Final as Const

from kaption.adapters.media.mpeg_audio import first_frame

#: Sample rates that audio may have; speech is not recorded below.
MIN_RATE: Const = 1000
MAX_RATE: Const = 192_000
_HEAD_BYTES: Const = 4096
#: Bytes in which bare frames and packets are searched: a piece of a broadcast begins within one.
_SEARCH_BYTES: Const = 256 << 10
#: Most tags before the sound, and most zero bytes, which some recorders write there, that are skipped.
_MOST_TAGS: Const = 16
#: More bytes than any object has. Beyond their own limits file systems fail a seek.
_FURTHEST: Const = 1 << 42
_MOST_ZEROS: Const = 1 << 20
_PACKETS: Const = (188, 192)
_PACKETS_ALIKE: Const = 5
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


@dataclass(frozen=True, slots=True)
class Found:
    """FFmpeg's demuxer for a file, and the byte at which its data begins."""

    kind: str
    start: int


def find(file: BinaryIO, size: int) -> Found | None:
    """Return the container of ``file`` of ``size`` bytes; None if it is no known media."""
    start = _behind_tags(file, 0, size)
    head = read_at(file, start, _HEAD_BYTES)
    if (kind := _by_magic(head)) is not None:
        return Found(kind, start)
    start = _behind_tags(file, _behind_zeros(file, start), size)
    data = read_at(file, start, _SEARCH_BYTES)
    if (kind := _by_magic(data)) is not None:
        return Found(kind, start)
    if (packet := _first_packet(data)) is not None:
        return Found("mpegts", start + packet)
    frame = first_frame(data, whole=start + len(data) >= size)
    return None if frame is None else Found(frame[0], start + frame[1])


def read_at(file: BinaryIO, offset: int, length: int) -> bytes:
    """Read up to ``length`` bytes at ``offset``, which may be any that a header claims."""
    if offset > _FURTHEST:
        return b""
    file.seek(offset)
    return file.read(length)


def _by_magic(head: bytes) -> str | None:
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[:4] in (b"RIFF", b"RF64", b"BW64", b"FORM"):
        return _CHUNKED.get(head[8:12])
    return "mov" if head[4:8] in _MOV_BOXES else None


def _behind_tags(file: BinaryIO, start: int, size: int) -> int:
    """Return the end of the ID3 tags at ``start``; a tag that claims to be longer than the file is not skipped."""
    for _ in range(_MOST_TAGS):
        head = read_at(file, start, 10)
        if len(head) < 10 or head[:3] != b"ID3":
            break
        length = 0
        for byte in head[6:10]:
            length = length << 7 | byte & 0x7F
        end = start + 10 + length + (10 if head[5] & 0x10 else 0)  # a footer
        if end >= size:
            break
        start = end
    return start


def _behind_zeros(file: BinaryIO, start: int) -> int:
    data = read_at(file, start, _MOST_ZEROS)
    return start + len(data) - len(data.lstrip(b"\0"))


def _first_packet(data: bytes) -> int | None:
    """Return the offset of the first MPEG-TS packet, with or without 4 bytes of time before each; None if there is none."""
    for size in _PACKETS:
        for at in range(size):
            if data[at : at + size * _PACKETS_ALIKE : size] == b"\x47" * _PACKETS_ALIKE:
                return max(0, at - (size - 188))
    return None
