"""Media containers by their first bytes. What of a file belongs to them, and whether it is whole, is ``container_parts``'.

A fixed list: what is not on it is no media, whatever a library could make of it (playlists name other files and URLs).
"""

from dataclasses import dataclass
from typing import BinaryIO
from typing import Final as Const

from kaption.adapters.media.mpeg_audio import first_frame
from kaption_schemas.reasons import Reason

#: Rates that sound may have: nobody speaks below.
MIN_RATE: Const = 1000
MAX_RATE: Const = 192_000
_HEAD_BYTES: Const = 4096
#: How far bare frames and packets are looked for: a cut of a broadcast begins amid one.
_SEARCH_BYTES: Const = 256 << 10
#: Tags before the sound, and zeros, which some recorders leave there, are passed over up to this.
_MOST_TAGS: Const = 16
#: More bytes than any object has; file systems have bounds of their own, past which a seek fails.
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


class MediaError(Exception):
    """Why a file can't be transcribed. ``detail`` names codecs, containers and positions, and never a value of the file."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.meaning} ({detail})" if detail else reason.meaning)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True)
class Found:
    """FFmpeg's demuxer for a file, and the byte at which what it reads begins."""

    kind: str
    start: int


def find(file: BinaryIO, size: int) -> Found | None:
    """What ``file`` of ``size`` bytes is; None for no known media."""
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
    """Up to ``length`` bytes at ``offset``, which may be any that a header claims."""
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
    """Where ID3 tags that begin at ``start`` end; one that claims to be longer than the file is not passed over."""
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
    """The offset of the first packet of MPEG-TS, with 4 bytes of time before each or without; None where there is none."""
    for size in _PACKETS:
        for at in range(size):
            if data[at : at + size * _PACKETS_ALIKE : size] == b"\x47" * _PACKETS_ALIKE:
                return max(0, at - (size - 188))
    return None
