"""Reads a local file's audio as PCM frames, to publish it live. The file is the user's own, so this process decodes it.

Untrusted files in the object store are decoded in a child process with limits (``files``).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from kaption.adapters.media.containers import find
from kaption.adapters.media.pieces import Piece
from kaption_schemas.errors import AudioFileError, RefusedError
from kaption_schemas.reasons import Reason

__all__ = ["AudioFile", "AudioFileError", "Format", "Piece", "is_media"]


@dataclass(frozen=True, slots=True)
class Format:
    """The format of ``AudioFile.frames``: s16le at ``rate``, ``channels`` interleaved; ``seconds`` is None if unknown."""

    rate: int
    channels: int
    seconds: float | None


def is_media(path: Path) -> bool:
    """Whether the file's first bytes are those of a supported container. Raises ``OSError``."""
    with path.open("rb") as file:
        return find(file, path.stat().st_size) is not None


class AudioFile:
    """An open audio file; a context manager. ``format`` is known once it is entered."""

    def __init__(self, path: Path, track: int | None = None) -> None:
        """``track``: the sound track, counted from 0; None: the one marked as default, or the first that is not silent."""
        self._path, self._track = path, track
        self.format = Format(0, 1, None)

    def __enter__(self) -> Self:
        """Open it.

        Raises:
            AudioFileError: The file is no audio, or PyAV is not installed.
            OSError: The file can't be read.
        """
        try:
            from kaption.adapters.media.sound import Sound  # noqa: PLC0415 - an extra that readers and object publishers do not need
        except ModuleNotFoundError:
            raise AudioFileError("reading audio files needs PyAV: install kaption[streams]") from None
        self._file = self._path.open("rb")
        try:
            self._sound = Sound(self._file, self._track)
        except RefusedError as error:
            self._file.close()
            why = (
                "is no audio or video of a container that is read here"
                if error.reason is Reason.NOT_MEDIA
                else "can't be read"
            )
            raise AudioFileError(f"{self._path} {why}: {error.detail}") from None
        self.format = Format(self._sound.rate, self._sound.channels, self._sound.seconds)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self._sound.close()
        self._file.close()

    def frames(self, milliseconds: int = 100) -> Iterator[bytes]:
        """Yield the audio in pieces of ``milliseconds``, without holes; the last, and those before a hole, may be shorter.

        Raises:
            AudioFileError: The file can't be decoded, or is not whole.
        """
        return (piece.pcm for piece in self.pieces(milliseconds) if piece.pcm)

    def pieces(self, milliseconds: int = 100) -> Iterator[Piece]:
        """Yield the audio in pieces of ``milliseconds`` with the holes between them: broken or missing packets.

        Raises:
            AudioFileError: The file can't be decoded, or is not whole.
        """
        size = self.format.rate * milliseconds // 1000 * 2 * self.format.channels
        held, fault = bytearray(), None
        pieces = self._sound.pieces()
        while True:
            try:
                piece = next(pieces, None)
            except RefusedError as error:
                piece, fault = None, error
            if (piece is None or piece.hole) and held:
                yield Piece(0, bytes(held))
                held.clear()
            if piece is None:
                break
            if piece.hole:
                yield Piece(piece.hole, b"")
            held += piece.pcm
            whole = len(held) // size * size
            for at in range(0, whole, size):
                yield Piece(0, bytes(held[at : at + size]))
            del held[:whole]
        if fault is not None:
            raise AudioFileError(f"{self._path} can't be decoded: {fault}")
