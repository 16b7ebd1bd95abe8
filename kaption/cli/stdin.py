"""Reads standard input as audio: raw samples, or a WAV whose header states their format. Refuses other files with a remedy."""

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final as Const

from kaption.adapters.media.local import Format, Piece
from kaption.client.publisher import FRAME_MS
from kaption_schemas.audio import MAX_CHANNELS, RATES
from kaption_schemas.errors import AudioFileError

_HEAD_BYTES: Const = 12
#: Most bytes of chunks before a WAV's samples; no recorder writes more there.
_MOST_HEADER: Const = 1 << 20
#: A length of 0, or from here on, means that the writer could not seek back to fill it in.
_UNKNOWN_LENGTH: Const = 0x7FFF0000
_PCM, _EXTENSIBLE = 1, 0xFFFE
_OTHERS: Const = (
    (b"fLaC", "FLAC"),
    (b"OggS", "Ogg"),
    (b"ID3", "MP3"),
    (b"\x1aE\xdf\xa3", "Matroska or WebM"),
    (b"FORM", "AIFF"),
    (b"RF64", "RF64"),
    (b"caff", "CAF"),
    (b".snd", "AU"),
)
_REMEDY: Const = "give the file's name, or pipe it through `ffmpeg -i - -f s16le -ar 16000 -ac 1 -`"


@dataclass(frozen=True, slots=True)
class _Wav:
    """A WAV's header: the format, and the size of the samples in bytes, None if the writer did not know it."""

    format: Format
    length: int | None


class Stdin:
    """Standard input. Once it is open, ``format`` is the WAV's, otherwise the one given for raw samples."""

    def __init__(self, raw: Format) -> None:
        self.format = raw
        self._left: int | None = None
        self._head = b""
        self._reader: asyncio.StreamReader | None = None

    async def open(self) -> None:
        """Read the first bytes. Raises ``AudioFileError``: standard input is a type of file that is not supported here."""
        mode = os.fstat(sys.stdin.fileno()).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or sys.stdin.isatty():  # reading of anything else does not block
            reader = self._reader = asyncio.StreamReader()
            protocol = asyncio.StreamReaderProtocol(reader)
            await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin.buffer)
        head = await self._exactly(_HEAD_BYTES)
        if head[:4] == b"RIFF" and head[8:] == b"WAVE":
            wav = await self._wav()
            self.format, self._left = wav.format, wav.length
            return
        kind = (
            "MP4" if head[4:8] == b"ftyp" else next((name for magic, name in _OTHERS if head.startswith(magic)), None)
        )
        if kind:
            raise AudioFileError(f"standard input is {kind}, not raw samples or a WAV: {_REMEDY}")
        self._head = head

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yield the samples as they arrive, in pieces of up to 100 ms."""
        size = self.format.rate * FRAME_MS // 1000 * self.format.channels * 2
        if self._head:
            yield Piece(0, self._head)
        while self._left is None or self._left > 0:
            data = await self._read(size if self._left is None else min(size, self._left))
            if not data:
                return
            if self._left is not None:
                self._left -= len(data)
            yield Piece(0, data)

    async def _wav(self) -> _Wav:
        read, form = 0, None
        while read < _MOST_HEADER:
            chunk = await self._exactly(8)
            length = int.from_bytes(chunk[4:], "little")
            if len(chunk) < 8 or (chunk[:4] == b"data" and form is None):
                break
            if chunk[:4] == b"data":
                assert form is not None  # noqa: S101  # checked above
                return _Wav(form, None if length == 0 or length >= _UNKNOWN_LENGTH else length)
            read += 8 + length
            if read > _MOST_HEADER:
                break
            body = await self._exactly(length + (length & 1))
            if len(body) < length:
                break
            if chunk[:4] == b"fmt ":
                form = _format(body)
        raise AudioFileError(f"standard input is a WAV whose header can't be read: {_REMEDY}")

    async def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (more := await self._read(size - len(data))):
            data += more
        return data

    async def _read(self, size: int) -> bytes:
        return sys.stdin.buffer.read(size) if self._reader is None else await self._reader.read(size)


def _format(body: bytes) -> Format:
    """Parse a ``fmt`` chunk. Raises ``AudioFileError``: a stream cannot have this format."""
    kind, channels = int.from_bytes(body[:2], "little"), int.from_bytes(body[2:4], "little")
    rate, bits = int.from_bytes(body[4:8], "little"), int.from_bytes(body[14:16], "little")
    if kind == _EXTENSIBLE:
        kind = int.from_bytes(body[24:26], "little")
    if (kind, bits) != (_PCM, 16) or rate not in RATES or not 1 <= channels <= MAX_CHANNELS:
        what = f"{channels} channels of {rate} Hz in {bits} bits, encoding {kind}"
        raise AudioFileError(f"standard input is a WAV of {what}, not of 16-bit PCM: {_REMEDY}")
    return Format(rate, channels, None)
