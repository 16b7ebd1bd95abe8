"""What a decoding child is asked for, as it goes from ``media`` to ``media_forks``. Loads no media library, so that who asks has none."""

import json
import signal
from dataclasses import asdict, dataclass
from typing import Final as Const

#: Signals of a decoder that fell over its input: SIGILL, SIGBUS, SIGFPE, SIGSEGV. A broken file, or an attack, and no limit.
FAULTS: Const = frozenset({signal.SIGILL, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV})
#: The same, and SIGABRT: what guards the stack and the heap ends by it, but a library also, where it gets no memory.
CRASHES: Const = FAULTS | {signal.SIGABRT}
#: The exit status of a child that could not be given its limits: it has not looked at the file.
NOT_CONFINED: Const = 2
#: Descriptors that go with a job: the file, where PCM goes, where status lines go, a socket that is told of the child.
DESCRIPTORS: Const = 4
#: More than any message has.
MESSAGE_BYTES: Const = 1024


@dataclass(frozen=True, slots=True)
class Job:
    """One decode and its bounds: address space in MiB, CPU seconds, seconds of audio; down to one channel with ``mix``."""

    memory_mb: int
    cpu_seconds: int
    audio_seconds: int
    mix: bool

    def write(self) -> bytes:
        """As a message."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def read(cls, message: bytes) -> "Job":
        """From a message of ``write``."""
        return cls(**json.loads(message))
