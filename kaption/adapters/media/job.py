"""Defines the request for a decoding child, from ``children`` to ``forks``. It loads no media library, so neither does an agent."""

import json
import signal
import struct
from dataclasses import asdict, dataclass
from typing import Final as Const

#: Signals of a decoder that crashed on its input: a broken file or an attack, but no limit.
FAULTS: Const = frozenset({signal.SIGILL, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV})
#: The same and SIGABRT: guards of the stack and the heap raise it, but also a library that gets no memory.
CRASHES: Const = FAULTS | {signal.SIGABRT}
#: Most descriptors with a job; the last is a socket for reports about the child.
DESCRIPTORS: Const = 4
#: More bytes than any message has.
MESSAGE_BYTES: Const = 1024

#: Request to a child that decodes frames: length, body. Its answer: length, rate, channels, PCM s16le; length 0: no frame.
FRAME_ASKED: Const = struct.Struct(">I")
FRAME_ANSWERED: Const = struct.Struct(">III")
#: Most samples of all channels in an answer: two seconds at the highest rate. A later check refuses frames that are too long.
FRAME_SAMPLES: Const = 2 * 48_000 * 2


@dataclass(frozen=True, slots=True)
class Job:
    """One decode and its bounds: address space in MiB, CPU seconds, seconds of audio. ``mix``: more than two channels may
    become two; ``track``: the sound track to take, counted from 0, None for the default one.
    """

    memory_mb: int
    cpu_seconds: int
    audio_seconds: int
    mix: bool
    track: int | None = None

    def write(self) -> bytes:
        """Encode it as a message."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def read(cls, message: bytes) -> "Job":
        """Decode a message of ``write``."""
        return cls(**json.loads(message))
