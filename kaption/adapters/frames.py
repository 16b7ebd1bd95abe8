"""Self-contained frames (FLAC, Ogg, WAV) to PCM, in a child process: their bytes are hostile until they are decoded.

The child reads ``length, body`` and answers ``length, rate, channels, PCM``, all numbers as 4 bytes; length 0 says that
the body could not be decoded. A child that dies, hangs or needs too much is replaced, and only its frame is refused.
"""

import io
import resource
import select
import signal
import struct
import subprocess
import sys
from typing import IO

import soundfile

from kaption.domain.events import RefusedError
from kaption.domain.pcm import FrameFormat
from kaption_schemas.reasons import Reason

#: All that the child's environment holds: no password, and no thread that a frame of a second does not need.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}
_SECONDS = 2.0
_MEMORY = 1 << 30
_MAX_SAMPLES = 2 * 48_000 * 2
_HEAD = struct.Struct(">III")
_LENGTH = struct.Struct(">I")


class FrameDecoder:
    """Decodes one frame at a time. Blocks for milliseconds, and never longer than two seconds."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def __call__(self, body: bytes, what: FrameFormat) -> bytes:
        """PCM s16le of ``body``. Raises ``RefusedError``: ``undecodable``, or another format than declared."""
        try:
            rate, channels, pcm = self._ask(body)
        except (OSError, TimeoutError, EOFError):
            self.close()
            raise RefusedError(Reason.UNDECODABLE) from None
        if not pcm or (rate, channels) != (what.rate, what.channels):
            raise RefusedError(Reason.UNDECODABLE)
        return pcm

    @property
    def pid(self) -> int | None:
        """The child's process id; None when none runs."""
        return None if self._child is None else self._child.pid

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    pipe.close()
            self._child = None

    def _ask(self, body: bytes) -> tuple[int, int, bytes]:
        if self._child is None:
            self._child = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=_ENVIRONMENT,
                cwd="/",
                bufsize=0,
            )
            self._wait_read(8, patience=20)  # it says so when it has loaded
        stdin = self._child.stdin
        assert stdin is not None  # noqa: S101  # a pipe was asked for
        stdin.write(_LENGTH.pack(len(body)) + body)
        length, rate, channels = _HEAD.unpack(self._wait_read(_HEAD.size))
        return rate, channels, self._wait_read(length) if length else b""

    def _wait_read(self, length: int, patience: float = _SECONDS) -> bytes:
        assert self._child is not None  # noqa: S101  # made by the caller
        stdout = self._child.stdout
        assert stdout is not None  # noqa: S101  # a pipe was asked for
        out = b""
        while len(out) < length:
            if not select.select([stdout], [], [], patience)[0]:
                raise TimeoutError
            piece = stdout.read(length - len(out))
            if not piece:
                raise EOFError
            out += piece
        return out


def _decode(body: bytes) -> tuple[int, int, bytes]:
    with soundfile.SoundFile(io.BytesIO(body)) as file:
        if file.channels > 2:
            return 0, 0, b""
        pcm = file.read(_MAX_SAMPLES, dtype="int16", always_2d=True)
        return file.samplerate, file.channels, pcm.astype("<i2").tobytes()


def _exactly(stream: IO[bytes], length: int) -> bytes:
    data = stream.read(length)
    return data if data is not None and len(data) == length else b""


def serve() -> None:
    """The child's loop; ends when its parent closes the pipe, and not with a signal to all processes of a service."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    stdout.write(b"decoding")
    stdout.flush()
    while head := _exactly(stdin, _LENGTH.size):
        body = _exactly(stdin, _LENGTH.unpack(head)[0])
        try:
            rate, channels, pcm = _decode(body)
        except (soundfile.SoundFileError, MemoryError, ValueError):
            rate, channels, pcm = 0, 0, b""
        stdout.write(_HEAD.pack(len(pcm), rate, channels) + pcm)
        stdout.flush()


if __name__ == "__main__":
    serve()
