"""Decode untrusted media to PCM s16le in a child process (``media_child``), which has limits and no secrets.

Owns the child's life; what a container or codec is, only the child knows. Calls block: use a thread.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Self
from typing import Final as Const

from kaption.adapters.settings import Settings
from kaption.domain.events import RefusedError
from kaption_schemas.reasons import Reason

#: All that the child's environment holds. NumPy's threads would cost more than the decode of a minute of audio.
_ENVIRONMENT: Const = {"OPENBLAS_NUM_THREADS": "1"}
#: Wall seconds a decode may take beyond twice its CPU seconds: it also waits for whoever reads.
_WALL_SLACK: Const = 60


@dataclass(frozen=True, slots=True)
class MediaFormat:
    """What comes out: PCM s16le, interleaved, at ``rate``."""

    rate: int
    channels: int

    @property
    def width(self) -> int:
        """Bytes of one sample of all channels."""
        return 2 * self.channels


class Decoding:
    """One file being decoded: a context manager that starts the child and leaves none behind.

    ``format`` is known once entered; ``read`` gives PCM; ``finish`` says whether that was all of it.
    """

    def __init__(self, file: BinaryIO, settings: Settings, *, mix: bool, wall_seconds: float | None = None) -> None:
        """Decode ``file`` (a real file; its position does not matter), down to one channel with ``mix``."""
        self._file, self._settings, self._mix = file, settings, mix
        self._wall = wall_seconds or 2 * settings.decode_cpu_seconds + _WALL_SLACK
        self.format = MediaFormat(0, 0)

    def __enter__(self) -> Self:
        """Start. Raises ``RefusedError`` when the child refuses before the first sample."""
        self._file.flush()
        reading, writing = os.pipe()
        try:
            self._child = subprocess.Popen(
                self._argv(writing),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=(self._file.fileno(), writing),
                env=_ENVIRONMENT,
                cwd="/",
                bufsize=1 << 18,
            )
        except OSError:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self._status = os.fdopen(reading, "rb")
        self._timer = threading.Timer(self._wall, self._child.kill)
        self._timer.daemon = True
        self._timer.start()
        try:
            line = self._line()
            self.format = MediaFormat(line["rate"], line["channels"])
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, samples: int) -> bytes:
        """PCM of exactly ``samples`` samples of all channels, less at the end, empty after it."""
        stdout = self._child.stdout
        assert stdout is not None  # noqa: S101  # a pipe was asked for
        return stdout.read(samples * self.format.width)

    def finish(self) -> int:
        """After the last ``read``: the samples decoded. Raises ``RefusedError`` if they are not the whole file."""
        return self._line()["samples"]

    def close(self) -> None:
        """End the child."""
        self._timer.cancel()
        with contextlib.suppress(ProcessLookupError):
            self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdout, self._status):
            if pipe is not None:
                pipe.close()

    def _line(self) -> dict[str, int]:
        line = self._status.readline()
        if not line.endswith(b"\n"):
            self._child.wait()
            raise RefusedError(_why(self._child.returncode))
        value: dict[str, int] = json.loads(line)
        if "reason" in value:
            raise RefusedError(_REASONS[str(value["reason"])])
        return value

    def _argv(self, status: int) -> list[str]:
        settings = self._settings
        numbers = {
            "--input": self._file.fileno(),
            "--status": status,
            "--memory-mb": settings.decode_memory_mb,
            "--cpu-seconds": settings.decode_cpu_seconds,
            "--audio-seconds": settings.object_max_seconds,
        }
        argv = [sys.executable, "-I", "-m", "kaption.adapters.media_child"]
        for name, number in numbers.items():
            argv += [name, str(number)]
        return argv + ["--mix"] * self._mix


_REASONS: Const = {reason.value: reason for reason in Reason}
#: SIGILL, SIGBUS, SIGFPE, SIGSEGV: a decoder that fell over its input, which is a broken file and no limit.
_FAULTS: Const = frozenset({-4, -7, -8, -11})


def _why(status: int) -> Reason:
    return Reason.NOT_MEDIA if status in _FAULTS else Reason.DECODE_LIMIT
