"""Audio of a local file as PCM frames, for publishing it live. The file is the user's own and is decoded in this process.

What strangers put into the object store is decoded elsewhere, in a child process with limits.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from typing import Final as Const

from kaption_schemas.audio import MAX_CHANNELS, RATES

_DEFAULT_RATE: Const = 48_000
#: Files that a folder is searched for.
SUFFIXES: Const = frozenset(
    {".aac", ".flac", ".m4a", ".mka", ".mkv", ".mov", ".mp3", ".mp4", ".oga", ".ogg", ".opus", ".wav", ".webm"}
)


class AudioFileError(Exception):
    """The file can't be read as audio; the message says why."""


@dataclass(frozen=True, slots=True)
class Format:
    """What ``AudioFile.frames`` gives: s16le at ``rate``, ``channels`` interleaved; ``seconds`` is None when unknown."""

    rate: int
    channels: int
    seconds: float | None


class AudioFile:
    """An open file. A context manager; ``format`` is known once it is entered."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._container: Any = None
        self._av: Any = None
        self.format = Format(_DEFAULT_RATE, 1, None)

    def __enter__(self) -> Self:
        """Open it.

        Raises:
            AudioFileError: It is no audio, or PyAV is not installed.
        """
        try:
            import av  # noqa: PLC0415 - an extra that readers and object publishers do not need
        except ModuleNotFoundError:
            raise AudioFileError("reading audio files needs PyAV: install kaption[streams]") from None
        self._av = av
        try:
            self._container = av.open(str(self._path))
        except (OSError, ValueError) as error:  # PyAV's errors are both
            raise AudioFileError(f"{self._path} can't be read as audio: {_why(error)}") from None
        if not self._container.streams.audio:
            self._container.close()
            raise AudioFileError(f"{self._path} holds no audio")
        stream = self._container.streams.audio[0]
        rate = stream.rate if stream.rate in RATES else _DEFAULT_RATE
        length = self._container.duration
        self.format = Format(
            rate, min(stream.channels, MAX_CHANNELS), None if length is None else length / av.time_base
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self._container.close()

    def frames(self, milliseconds: int = 100) -> Iterator[bytes]:
        """The audio in pieces of ``milliseconds``; the last may be shorter.

        Raises:
            AudioFileError: The file is damaged.
        """
        layout = "mono" if self.format.channels == 1 else "stereo"
        samples = self.format.rate * milliseconds // 1000
        resampler = self._av.AudioResampler("s16", layout, self.format.rate, samples)
        try:
            for frame in self._container.decode(audio=0):
                for out in resampler.resample(frame):
                    yield _bytes(out)
            for out in resampler.resample(None):
                yield _bytes(out)
        except (OSError, ValueError) as error:
            raise AudioFileError(f"{self._path} can't be decoded: {_why(error)}") from None


def _bytes(frame: Any) -> bytes:
    # The plane is padded; samples are what counts.
    return bytes(frame.planes[0])[: frame.samples * len(frame.layout.channels) * 2]


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
