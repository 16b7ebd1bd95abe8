"""What a decoding child is asked for, as it goes from ``children`` to ``forks``. Loads no media library, so that who asks has none."""

import json
import signal
import struct
from dataclasses import asdict, dataclass
from typing import Final as Const

#: Signals of a decoder that fell over its input: SIGILL, SIGBUS, SIGFPE, SIGSEGV. A broken file, or an attack, and no limit.
FAULTS: Const = frozenset({signal.SIGILL, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV})
#: The same, and SIGABRT: what guards the stack and the heap ends by it, but a library also, where it gets no memory.
CRASHES: Const = FAULTS | {signal.SIGABRT}
#: At most as many descriptors go with a job; the last is a socket that is told of the child.
DESCRIPTORS: Const = 4
#: More than any message has.
MESSAGE_BYTES: Const = 1024

#: What a child that decodes frames is asked: length, body; and its answer: length, rate, channels, PCM s16le. Length 0: no frame.
FRAME_ASKED: Const = struct.Struct(">I")
FRAME_ANSWERED: Const = struct.Struct(">III")
#: Samples of all channels in an answer: two seconds at the highest rate. A frame that is too long is refused behind this.
FRAME_SAMPLES: Const = 2 * 48_000 * 2


@dataclass(frozen=True, slots=True)
class Job:
    """One decode and its bounds: address space in MiB, CPU seconds, seconds of audio. ``mix``: more than two channels may
    become two; ``track``: the sound track to take, counted from 0, None for the one that is meant.
    """

    memory_mb: int
    cpu_seconds: int
    audio_seconds: int
    mix: bool
    track: int | None = None

    def write(self) -> bytes:
        """As a message."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def read(cls, message: bytes) -> "Job":
        """From a message of ``write``."""
        return cls(**json.loads(message))
