"""Decodes untrusted media to PCM s16le in a confined child process per file (``file_child``) without secrets.

It owns the requests to a child and the checks of its answers; only a child knows containers and codecs. Calls block: use a
thread.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Self
from typing import Final as Const

import numpy as np

from kaption.adapters.media.children import Child, Children
from kaption.adapters.media.job import FAULTS, Job
from kaption.adapters.settings import Settings
from kaption.domain.run.mixing import Mixer
from kaption_schemas.audio import MAX_CHANNELS, RATES
from kaption_schemas.errors import RefusedError
from kaption_schemas.reasons import Reason

#: Wall seconds to wait for a child beyond twice its CPU seconds: it shares the processor and the disk.
_WALL_SLACK: Const = 60
__all__ = ["Decoding", "MediaDecoder", "MediaFormat"]

_BUFFER_BYTES: Const = 1 << 18
_STATUS_BYTES: Const = 4096
_DETAIL_CHARACTERS: Const = 200


@dataclass(frozen=True, slots=True)
class MediaFormat:
    """The format of the output: PCM s16le, interleaved, at ``rate``."""

    rate: int
    channels: int

    @property
    def width(self) -> int:
        """Bytes of one sample of all channels."""
        return 2 * self.channels


def _pipe() -> tuple[BinaryIO, BinaryIO]:
    """Make a pipe; return its ends to read from and to write to."""
    reading, writing = os.pipe()
    return os.fdopen(reading, "rb", _BUFFER_BYTES), os.fdopen(writing, "wb")


@dataclass(slots=True)
class _Sources:
    """A decoding child and the pipes that it writes to."""

    child: Child
    pcm: BinaryIO
    status: BinaryIO

    def close(self) -> None:
        """End the child and release its descriptors."""
        self.child.close()
        self.pcm.close()
        self.status.close()


class MediaDecoder:
    """Starts decodes. Safe to use from several threads."""

    def __init__(
        self, settings: Settings, program: Sequence[str] = ("-m", "kaption.adapters.media.file_forks")
    ) -> None:
        self._settings = settings
        self._children = Children(program)

    @property
    def pid(self) -> int | None:
        """The process id of the forking process; None if none runs."""
        return self._children.pid

    def decode(
        self, file: BinaryIO, *, mix: bool, track: int | None = None, wall_seconds: float | None = None
    ) -> "Decoding":
        """Prepare a decode of ``file``, to one channel with ``mix``; of its default sound track, or of number ``track``.

        ``file`` is a real file that only this decode uses: it shares the position with the child. Entering raises
        ``ProcessError`` or ``OSError`` if no child can be started. ``wall_seconds``: the longest wait for the child in all.
        """
        settings = self._settings
        job = Job(
            memory_mb=settings.decode_memory_mb,
            cpu_seconds=settings.decode_cpu_seconds,
            audio_seconds=settings.object_max_seconds,
            mix=mix,
            track=track,
        )
        wall = wall_seconds or 2 * settings.decode_cpu_seconds + _WALL_SLACK
        return Decoding(lambda: self._start(file, job), job, wall)

    def close(self) -> None:
        """End the forking process and any children left."""
        self._children.close()

    def _start(self, file: BinaryIO, job: Job) -> _Sources:
        file.flush()
        with contextlib.ExitStack() as undo:
            pcm, pcm_in = map(undo.enter_context, _pipe())
            status, status_in = map(undo.enter_context, _pipe())
            child = self._children.start(job, (file.fileno(), pcm_in.fileno(), status_in.fileno()))
            for end in (pcm_in, status_in):  # only the child keeps these open
                end.close()
            undo.pop_all()
            return _Sources(child, pcm, status)


class Decoding:
    """The decode of one file: a context manager that starts a child and leaves none behind.

    ``format`` is known once entered; ``read`` returns PCM; ``finish`` checks that it was the whole file. This class mixes two
    channels to one on request, with NumPy, which a child does not load. A file may have taken over its child: an answer that
    no decoder gives is ``DECODE_LIMIT`` and ends the child.
    """

    def __init__(self, start: Callable[[], _Sources], job: Job, wall_seconds: float) -> None:
        self._start, self._job, self._patience = start, job, wall_seconds
        self.format = self._decoded = MediaFormat(0, 0)
        self._mixer: Mixer | None = None
        self._mixed = bytearray()
        self._samples = 0

    def __enter__(self) -> Self:
        """Start the child.

        Raises ``RefusedError`` if the child refuses the file before the first sample, ``ProcessError`` or ``OSError`` if no child
        can be started.
        """
        self._sources = self._start()
        try:
            line = self._line()
            rate, channels = _number(line, "rate"), _number(line, "channels")
            if rate not in RATES or channels not in range(1, MAX_CHANNELS + 1):
                raise _unbelieved()
            self.format = self._decoded = MediaFormat(rate, channels)
            if self._job.mix and channels > 1:
                self.format, self._mixer = MediaFormat(rate, 1), Mixer(rate)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, samples: int) -> bytes:
        """Read PCM of ``samples`` samples of all channels; less at the end, empty after it. Raises ``RefusedError``."""
        if self._mixer is None:
            return self._read(samples)
        want = samples * self.format.width
        while len(self._mixed) < want:
            first = self._samples
            pcm = np.frombuffer(self._read(samples), "<i2").reshape(-1, 2)
            mono, _ = self._mixer.feed(pcm, first) if len(pcm) else self._mixer.flush()
            self._mixed += mono.astype("<i2").tobytes()
            if not len(pcm):
                break
        piece = bytes(self._mixed[:want])
        del self._mixed[:want]
        return piece

    def _read(self, samples: int) -> bytes:
        """Read up to ``samples`` samples of all channels as the child decoded them."""
        with self._limited():
            pcm = self._sources.pcm.read(samples * self._decoded.width)
        count, cut = divmod(len(pcm), self._decoded.width)
        self._samples += count
        if cut:  # it ended in the middle of a sample
            raise RefusedError(_why(self._sources.child.end()))
        if self._samples > self._job.audio_seconds * self.format.rate:
            raise RefusedError(Reason.TOO_LONG)
        return pcm

    def finish(self) -> int:
        """Return the samples decoded, after the last ``read``. Raises ``RefusedError`` if they are not the whole file."""
        samples = _number(self._line(), "samples")
        if samples != self._samples:
            raise _unbelieved()
        return samples

    def close(self) -> None:
        """End the child."""
        self._sources.close()

    @contextlib.contextmanager
    def _limited(self) -> Iterator[None]:
        """Wait for the child, and end it when all waits together are too long. The caller's own time does not count: its store
        may be slow.
        """
        began = time.monotonic()
        timer = threading.Timer(max(0.0, self._patience), self._sources.child.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()  # it no longer uses the descriptor that may be closed next
            self._patience -= time.monotonic() - began

    def _line(self) -> dict[str, object]:
        with self._limited():
            line = self._sources.status.readline(_STATUS_BYTES)
        if not line.endswith(b"\n"):
            raise RefusedError(_why(self._sources.child.end()))
        try:
            value = json.loads(line)
        except ValueError:
            raise _unbelieved() from None
        if not isinstance(value, dict):
            raise _unbelieved()
        if "reason" in value:
            raise RefusedError(Reason.read(str(value["reason"])) or Reason.DECODE_LIMIT, _detail(value))
        return value


def _number(line: dict[str, object], name: str) -> int:
    value = line.get(name)
    return value if type(value) is int else -1


def _detail(line: dict[str, object]) -> str:
    """Return the child's detail, if it is a line of plain characters."""
    return "".join(c for c in str(line.get("detail", ""))[:_DETAIL_CHARACTERS] if c.isascii() and c.isprintable())


def _unbelieved() -> RefusedError:
    """Make the error for an answer that no decoder gives."""
    return RefusedError(Reason.DECODE_LIMIT)


def _why(status: int) -> Reason:
    return Reason.NOT_MEDIA if -status in FAULTS else Reason.DECODE_LIMIT
