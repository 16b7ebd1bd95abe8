"""Decode untrusted media to PCM s16le in a child process a file (``media_child``), which has limits and no secrets.

Owns the children's lives and that of the process that forks them (``media_forks``); what a container or codec is, only a
child knows. Calls block: use a thread.
"""

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import BinaryIO, Self
from typing import Final as Const

from kaption.adapters.media_job import FAULTS, MESSAGE_BYTES, NOT_CONFINED, Job
from kaption.adapters.settings import Settings
from kaption.domain.events import RefusedError
from kaption_schemas.reasons import Reason

#: Wall seconds a decode may take beyond twice its CPU seconds: it also waits for whoever reads.
_WALL_SLACK: Const = 60
_BUFFER_BYTES: Const = 1 << 18
#: Wall seconds that what forks the children may take to start one, its own start included, or to tell of one's end.
_FORK_SECONDS: Const = 60.0
_STATUS_BYTES: Const = 4096


class ChildError(Exception):
    """A decoding child can't be started, or was lost: this machine's fault, not the file's."""


@dataclass(frozen=True, slots=True)
class MediaFormat:
    """What comes out: PCM s16le, interleaved, at ``rate``."""

    rate: int
    channels: int

    @property
    def width(self) -> int:
        """Bytes of one sample of all channels."""
        return 2 * self.channels


def _pipe() -> tuple[BinaryIO, BinaryIO]:
    """A pipe's ends, to read from and to write to."""
    reading, writing = os.pipe()
    return os.fdopen(reading, "rb", _BUFFER_BYTES), os.fdopen(writing, "wb")


@dataclass(slots=True)
class _Child:
    """A decoding child: what it writes, a descriptor of it, and the socket that tells of its end."""

    stdout: BinaryIO
    status: BinaryIO
    pidfd: int
    ends: socket.socket
    _code: int | None = field(default=None, init=False)

    def kill(self) -> None:
        """End it, if it has not ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def end(self) -> int:
        """End it, and say with what status it ended: this, or what it was ending with already; negative for a signal.

        ``ChildError`` where what forked it ended first, and took it along.
        """
        if self._code is None:
            self.kill()
            try:
                told = self.ends.recv(MESSAGE_BYTES)
            except OSError as error:
                raise ChildError("the process that forks decoding children does not answer") from error
            if not told:
                raise ChildError("the process that forks decoding children has ended")
            self._code = int(told)
        return self._code

    def close(self) -> None:
        """End it, and let go of it."""
        with contextlib.suppress(ChildError):
            self.end()
        self.stdout.close()
        self.status.close()
        self.ends.close()
        os.close(self.pidfd)


class MediaDecoder:
    """Starts decodes. What forks the children is started with the first, and anew when it has ended.

    Safe to use from several threads. It ends when a child crashes (``media_forks``): others at work then raise ``ChildError``.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._forks: tuple[subprocess.Popen[bytes], socket.socket] | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process that forks the children; None where none runs."""
        with self._lock:
            return None if self._forks is None else self._forks[0].pid

    def decode(self, file: BinaryIO, *, mix: bool, wall_seconds: float | None = None) -> "Decoding":
        """A decode of ``file``, down to one channel with ``mix``.

        It is a real file, and this decode's alone: its position is the child's. Entering raises ``ChildError`` or ``OSError``
        where no child can be started.
        """
        wall = wall_seconds or 2 * self._settings.decode_cpu_seconds + _WALL_SLACK
        return Decoding(lambda: self._start(file, mix=mix), wall)

    def close(self) -> None:
        """End what forks the children, and any that are left."""
        with self._lock:
            self._closed = True
            self._stop()

    def _start(self, file: BinaryIO, *, mix: bool) -> _Child:
        file.flush()
        with self._lock:
            if self._closed:
                raise ChildError("no file is decoded any more")
            for _ in range(2):  # what forks them may have ended since the last file
                child = self._fork(file.fileno(), mix=mix)
                if child is not None:
                    return child
                self._stop()
        raise ChildError(
            "the process that forks decoding children ends at once, or does not answer; is PyAV installed?"
        )

    def _fork(self, file: int, *, mix: bool) -> _Child | None:
        """A new child; None where what should fork it has ended, or does not answer."""
        settings = self._settings
        job = Job(
            memory_mb=settings.decode_memory_mb,
            cpu_seconds=settings.decode_cpu_seconds,
            audio_seconds=settings.object_max_seconds,
            mix=mix,
        )
        requests = self._running()
        with contextlib.ExitStack() as undo:
            ends, tells = map(undo.enter_context, socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            pcm, pcm_in = map(undo.enter_context, _pipe())
            status, status_in = map(undo.enter_context, _pipe())
            given = [file, pcm_in.fileno(), status_in.fileno(), tells.fileno()]
            try:
                socket.send_fds(requests, [job.write()], given)
                for end in (pcm_in, status_in, tells):  # the child's alone from here on
                    end.close()
                ends.settimeout(_FORK_SECONDS)
                told, pidfds, _, _ = socket.recv_fds(ends, MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
            except OSError:
                return None
            if not told:
                return None
            if not pidfds:  # none was made, or this process has no descriptor left
                raise ChildError(f"no decoding child can be started: {os.strerror(int(told) or errno.EMFILE)}")
            undo.pop_all()
            return _Child(pcm, status, pidfds[0], ends)

    def _running(self) -> socket.socket:
        """The socket of what forks the children, which is started unless it runs."""
        if self._forks is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            argv = [sys.executable, "-I", "-m", "kaption.adapters.media_forks"]
            nothing = subprocess.DEVNULL
            with theirs:
                try:
                    process = subprocess.Popen(
                        argv, stdin=theirs.fileno(), stdout=nothing, stderr=nothing, env={}, cwd="/"
                    )
                except OSError:
                    ours.close()
                    raise
            self._forks = process, ours
        return self._forks[1]

    def _stop(self) -> None:
        if self._forks is not None:
            process, ours = self._forks
            self._forks = None
            ours.close()
            process.kill()
            process.wait()


class Decoding:
    """One file being decoded: a context manager that starts a child and leaves none behind.

    ``format`` is known once entered; ``read`` gives PCM; ``finish`` says whether that was all of it.
    """

    def __init__(self, start: Callable[[], _Child], wall_seconds: float) -> None:
        self._start, self._wall = start, wall_seconds
        self.format = MediaFormat(0, 0)

    def __enter__(self) -> Self:
        """Start. Raises ``RefusedError`` when the child refuses before the first sample, ``ChildError`` or ``OSError`` when there is none."""
        self._child = self._start()
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
        return self._child.stdout.read(samples * self.format.width)

    def finish(self) -> int:
        """After the last ``read``: the samples decoded. Raises ``RefusedError`` if they are not the whole file."""
        return self._line()["samples"]

    def close(self) -> None:
        """End the child."""
        self._timer.cancel()
        self._timer.join()  # it has let go of the descriptor that is closed next
        self._child.close()

    def _line(self) -> dict[str, int]:
        line = self._child.status.readline(_STATUS_BYTES)
        if not line.endswith(b"\n"):
            raise RefusedError(_why(self._child.end()))
        value: dict[str, int] = json.loads(line)
        if "reason" in value:
            raise RefusedError(_REASONS[str(value["reason"])])
        return value


def _why(status: int) -> Reason:
    if status == NOT_CONFINED:
        raise ChildError("a decoding child can't be given its limits")
    return Reason.NOT_MEDIA if -status in FAULTS else Reason.DECODE_LIMIT


_REASONS: Const = {reason.value: reason for reason in Reason}
