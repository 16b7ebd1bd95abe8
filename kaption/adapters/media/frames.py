"""Decodes self-contained frames (FLAC, Ogg, WAV) to PCM in a child process per tenant (``frame_child``): they are hostile.

If a child dies, hangs or gives an answer that no decoder gives, the frame is refused and the child replaced. If a tenant's
children fail repeatedly, its frames are refused without a try for a while, so that they take no time from other tenants.
"""

import logging
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Final as Const

from kaption.adapters.media.children import Children
from kaption.adapters.media.job import FRAME_ANSWERED, FRAME_ASKED, FRAME_SAMPLES, Job
from kaption_schemas.content_type import FrameFormat
from kaption_schemas.errors import ProcessError, RefusedError
from kaption_schemas.reasons import Reason

log = logging.getLogger(__name__)

#: A frame's first bytes; no decoder gets a frame that begins differently.
_BEGINS: Const = {"flac": b"fLaC", "ogg": b"OggS", "wav": b"RIFF"}
#: One thread is enough for a frame of a second.
_ENVIRONMENT: Const = {"OPENBLAS_NUM_THREADS": "1"}
#: CPU and wall seconds that a frame may take; it needs a few milliseconds, and more on a busy processor.
_CPU_SECONDS: Const = 0.25
_WALL_SECONDS: Const = 2.0
_LOOK_SECONDS: Const = 0.02
#: Bounds of one child, which is replaced after half of its CPU time.
_JOB: Const = Job(memory_mb=1024, cpu_seconds=3600, audio_seconds=2, mix=False)
#: Clock of a process's CPU time: MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) of linux/posix-timers_types.h.
_CPU_CLOCK: Const = 2
#: Most children at once; beyond, the child of the tenant longest without a frame ends.
_CHILDREN: Const = 32
#: Failures of a tenant's children within ``_PENALTY_SECONDS``, after which its frames are refused for as long.
_FAILURES: Const = 3
_PENALTY_SECONDS: Const = 60.0


class _FailedError(Exception):
    """A child ended, hung, or gave an answer that no decoder gives."""


class FrameDecoder:
    """Decodes one frame at a time. It blocks for milliseconds, at most two seconds once a child has started.

    Safe to call from several threads: the thread of an abandoned frame may still be here when the next frame comes.
    """

    def __init__(
        self,
        program: Sequence[str] = ("-m", "kaption.adapters.media.frame_child"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._children = Children(program, _ENVIRONMENT)
        self._clock = clock
        self._lock = threading.Lock()
        self._decoders: OrderedDict[str, _Decoder] = OrderedDict()
        self._failures: dict[str, deque[float]] = {}

    def __call__(self, body: bytes, what: FrameFormat, tenant: str) -> bytes:
        """Decode ``body`` to PCM s16le. Raises ``RefusedError`` (``undecodable``), also for another format than declared.

        Raises ``ProcessError`` or ``OSError`` if no child can be started.
        """
        with self._lock:
            if not body.startswith(_BEGINS[what.encoding]) or self._is_refused(tenant):
                raise RefusedError(Reason.UNDECODABLE)
            try:
                rate, channels, pcm = self._ask(tenant, body)
            except _FailedError as error:
                self._failed(tenant, str(error))
                raise RefusedError(Reason.UNDECODABLE) from None
        if not pcm or (rate, channels) != (what.rate, what.channels):
            raise RefusedError(Reason.UNDECODABLE)
        return pcm

    def pid(self, tenant: str) -> int | None:
        """Return the process id of a tenant's child; None if it has none."""
        decoder = self._decoders.get(tenant)
        return None if decoder is None else decoder.pid

    def close(self) -> None:
        """End the children."""
        while self._decoders:
            self._decoders.popitem()[1].close()
        self._children.close()

    def _ask(self, tenant: str, body: bytes) -> tuple[int, int, bytes]:
        for _ in range(2):
            decoder = self._decoder(tenant)
            try:
                return decoder.ask(body)
            except _FailedError:
                del self._decoders[tenant]
                with closing(decoder):
                    # Otherwise the forking process ended and took the child with it: not the frame's fault.
                    if not decoder.is_lost():
                        raise
        raise ProcessError("the process that forks decoding children ends again and again")

    def _decoder(self, tenant: str) -> "_Decoder":
        decoder = self._decoders.pop(tenant, None)
        if decoder is not None and decoder.is_old():
            decoder.close()
            decoder = None
        if decoder is None:
            if len(self._decoders) >= _CHILDREN:
                self._decoders.popitem(last=False)[1].close()
            decoder = _Decoder(self._children)
        self._decoders[tenant] = decoder  # last in order: the most recently used
        return decoder

    def _failed(self, tenant: str, why: str) -> None:
        log.warning("frame_decoder_failed", extra={"tenant": tenant, "why": why})
        self._failures.setdefault(tenant, deque(maxlen=_FAILURES)).append(self._clock())

    def _is_refused(self, tenant: str) -> bool:
        """Whether a tenant's last failures were so close together that its frames are refused, until the newest is a minute old."""
        failures = self._failures.get(tenant, deque[float]())
        if len(failures) < _FAILURES or failures[-1] - failures[0] > _PENALTY_SECONDS:
            return False
        if self._clock() - failures[-1] < _PENALTY_SECONDS:
            return True
        del self._failures[tenant]
        return False


class _Decoder:
    """One tenant's child, and the socket to it."""

    def __init__(self, children: Children) -> None:
        self._socket, theirs = socket.socketpair()
        try:
            with theirs:
                self._child = children.start(_JOB, (theirs.fileno(), theirs.fileno()))
        except BaseException:
            self._socket.close()
            raise

    @property
    def pid(self) -> int:
        return self._child.pid

    def ask(self, body: bytes) -> tuple[int, int, bytes]:
        """Return rate, channels and PCM of ``body``; the PCM is empty if it is no frame. Raises ``_FailedError``."""
        try:
            limits = time.monotonic() + _WALL_SECONDS, self._cpu() + _CPU_SECONDS
            self._socket.settimeout(_WALL_SECONDS)
            self._socket.sendall(FRAME_ASKED.pack(len(body)) + body)
            length, rate, channels = FRAME_ANSWERED.unpack(self._receive(FRAME_ANSWERED.size, limits))
            if length > 2 * FRAME_SAMPLES or length % (2 * max(channels, 1)):
                raise _FailedError("it says what no decoder does")
            return rate, channels, self._receive(length, limits)
        except TimeoutError:
            raise _FailedError("it hung") from None
        except OSError:
            raise _FailedError("it ended") from None

    def is_old(self) -> bool:
        """Whether its CPU time runs out."""
        try:
            return self._cpu() > _JOB.cpu_seconds / 2
        except OSError:
            return True  # it has ended

    def is_lost(self) -> bool:
        """End it; return whether the forking process had ended before."""
        try:
            self._child.end()
        except ProcessError:
            return True
        return False

    def close(self) -> None:
        """End it and release its socket."""
        self._child.close()
        self._socket.close()

    def _cpu(self) -> float:
        """Return the CPU seconds that it has used. Raises ``OSError`` if it is gone."""
        return time.clock_gettime(~self._child.pid << 3 | _CPU_CLOCK)

    def _receive(self, length: int, limits: tuple[float, float]) -> bytes:
        out = bytearray()
        wall, cpu = limits
        self._socket.settimeout(_LOOK_SECONDS)
        while len(out) < length:
            try:
                piece = self._socket.recv(length - len(out))
            except TimeoutError:
                if time.monotonic() < wall and self._cpu() < cpu:
                    continue
                raise
            if not piece:
                raise _FailedError("it ended")
            if time.monotonic() > wall:  # it answers, but a byte at a time
                raise TimeoutError
            out += piece
        return bytes(out)
