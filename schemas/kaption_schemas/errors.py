"""Defines every error that Kaption raises on purpose.

::

    KaptionError
    ├── RefusedError            what was sent is refused, with a reason code
    │   └── RunFailedError      a run was refused or abandoned, seen by its reader
    ├── AudioFileError          a user's own file can't be read as audio
    ├── UnavailableError        another try may succeed
    │   ├── StoreError          the object store
    │   │   └── StoreRefusedError   it refuses the credentials, or what they ask for: another try would not help
    │   ├── LocalError          this machine's disk
    │   ├── LaneError           a transaction, or the partition, is lost
    │   └── PublishError        the brokers
    ├── IncompatibleError       a snapshot, weights or topics are not those that this version reads
    │   └── TopicsError
    ├── ProcessError            a process can't be started, or was lost
    ├── StuckError              a service stands still: its process must end
    └── StoppedError            the process is about to end

``reason`` is the stable code where there is one; ``retry`` says whether another try may succeed.
"""

from collections.abc import Iterable, Sequence
from typing import ClassVar, Protocol

from kaption_schemas.reasons import Reason


class KaptionError(Exception):
    """The base of all."""

    reason: Reason | None = None
    retry: ClassVar[bool] = False


class RefusedError(KaptionError):
    """A record, a file or an object is refused for ``reason``; another try would change nothing.

    The message is the reason's meaning and never a value of the record. ``detail`` names codecs, containers and positions.
    """

    reason: Reason

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason.meaning)
        self.reason = reason
        self.detail = detail

    @property
    def explained(self) -> str:
        """The message, with the detail if there is one."""
        return f"{self} ({self.detail})" if self.detail else str(self)


class _Ended(Protocol):
    """A completed run, ``kaption_schemas.records.StreamCompleted``."""

    @property
    def stream(self) -> str:
        """The stream's name."""

    @property
    def reason(self) -> Reason:
        """The reason for which the run closed."""


class RunFailedError(RefusedError):
    """Runs that were read to their end had been refused or abandoned. ``runs`` are their completions."""

    def __init__(self, runs: Iterable[_Ended]) -> None:
        self.runs = tuple(runs)
        super().__init__(self.runs[0].reason)
        self.args = ("\n".join(f"{run.stream}: {run.reason}: {run.reason.meaning}" for run in self.runs),)


class AudioFileError(KaptionError):
    """A user's own file can't be read as audio; the message says why."""


class UnavailableError(KaptionError):
    """Something that Kaption needs does not answer, or not as it should; another try may succeed."""

    retry = True


class StoreError(UnavailableError):
    """The store is away or slow, or gives a wrong answer; the message says which, without secrets."""


class StoreRefusedError(StoreError):
    """The store refuses the credentials, or does not allow them what they ask for."""

    retry = False


class LocalError(UnavailableError):
    """This machine's end of a transfer failed, for example by a full disk. ``number`` is the ``errno``; 0 if there is none."""

    def __init__(self, error: OSError | str) -> None:
        self.number = 0 if isinstance(error, str) else error.errno or 0
        super().__init__(error if isinstance(error, str) else error.strerror or type(error).__name__)


class LaneError(UnavailableError):
    """A transaction failed or its end is unclear, or the partition went to another worker: the lane must begin again."""


class PublishError(UnavailableError):
    """The brokers did not take a record. The publisher can't go on (HAZARDS, aiokafka 2): make a new one, and a new run."""


class IncompatibleError(KaptionError):
    """This version can't use a snapshot, weights or topics; the message says what an operator should do."""


class _Problem(Protocol):
    """One difference between a topic and the map."""

    @property
    def topic(self) -> str:
        """The topic's name on the broker."""

    @property
    def what(self) -> str:
        """The difference."""

    @property
    def remedy(self) -> str:
        """The step that an operator should take."""


class TopicsError(IncompatibleError):
    """The broker's topics differ from the map, or could not be created; ``problems`` has each difference with its remedy."""

    def __init__(self, problems: Sequence[_Problem]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class ProcessError(KaptionError):
    """A process can't be started, or was lost: a fault of this machine. The message names it and its remedy."""


class StuckError(KaptionError):
    """There was something to do and nothing was done for too long; only the end of the process helps."""


class StoppedError(KaptionError):
    """The process is about to end; what it was doing is left for the next one."""
