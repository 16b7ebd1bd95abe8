"""What the pool asks of a session, so that lanes and loop run in tests without a model. ``kaption.domain.run.session`` fits."""

from collections.abc import Collection, Sequence
from typing import Protocol

from kaption.domain.decoding.port import Decoded, Kind, Window
from kaption.domain.records import AudioRecord, Latency, Output, RunKey
from kaption_schemas.reasons import Reason
from kaption_schemas.records import DataRef, RunOptions


class Wanted(Protocol):
    """A window that a session wants decoded, described without copying its audio."""

    @property
    def window_id(self) -> int:
        """The session's id of the window."""

    @property
    def kind(self) -> Kind:
        """Final or partial."""

    @property
    def seconds(self) -> float:
        """Seconds of audio in it."""

    @property
    def overdue_s(self) -> float:
        """For how long it has been waiting."""

    @property
    def alone(self) -> bool:
        """Whether it may make its batch fail, and is decoded by itself."""


class LaneSession(Protocol):
    """One run, all its channels, as a state machine without I/O, clock or model. Times are ms since 1970."""

    epoch: int

    @property
    def key(self) -> RunKey:
        """The run."""

    @property
    def latency(self) -> Latency:
        """Live or batch."""

    @property
    def options(self) -> RunOptions:
        """What the run asked for, as far as it is known."""

    @property
    def closed(self) -> bool:
        """Whether every output of the run has been returned."""

    @property
    def ended(self) -> bool:
        """Whether no more audio comes: what is left are the last finals."""

    @property
    def next_sequence(self) -> int:
        """The sequence that is awaited: what comes before it was taken, or is missing for good."""

    @property
    def newest_ms(self) -> int:
        """When the broker received the newest record that was taken, in ms since 1970; -1 before the first."""

    @property
    def last_offset(self) -> int:
        """Offset of the last record that was fed, to an earlier owner too; -1 before the first."""

    @property
    def undecided(self) -> Collection[int]:
        """Offsets of the records that were taken and may still be dead-lettered."""

    def feed(self, record: AudioRecord) -> Sequence[Output]:
        """Take the run's next record."""

    def tick(self, now_ms: int) -> Sequence[Output]:
        """Let the idle timers see the time."""

    def close(self, reason: Reason, now_ms: int) -> None:
        """Finish what is open; the outputs come through ``wants``, ``apply`` and ``tick``."""

    def note_loss(self) -> None:
        """The log lost records since the session was saved: the next gap is theirs."""

    def wants(self, now_ms: int) -> Sequence[Wanted]:
        """What is not in flight and should be decoded."""

    def begin(self, window_id: int) -> Window:
        """Copy a wanted window's audio out and mark it in flight."""

    def abandon(self, window_id: int) -> None:
        """Put a window in flight back."""

    def fail(self, window_id: int, *, hung: bool) -> Sequence[Output] | None:
        """The model failed on a window's batch, or hung: put it back, to be decoded alone (None), or give it up."""

    def apply(self, window_id: int, decoded: Decoded, now_ms: int) -> Sequence[Output]:
        """Take a window's result."""

    def settled_offset(self) -> int | None:
        """Offset of the oldest record that no final covers yet; None when all are covered."""

    def snapshot(self) -> bytes:
        """What ``restore`` needs, consistent with ``settled_offset`` and the durable outputs returned so far."""

    def drafted(self) -> None:
        """The outputs returned so far go into a transaction that begins."""

    def committed(self) -> None:
        """The last transaction that was drafted is committed."""

    def backlog_seconds(self) -> float:
        """Audio that no final covers yet."""

    def undecoded(self) -> bool:
        """Whether a closed segment waits for its decode, or is in it: then there will be less without more audio."""


class Admission(Protocol):
    """Whether a live run is taken: asked at its first record, when it counts as open."""

    def __call__(self, tenant: str, here: int, *, new: bool) -> Reason | None:
        """Why a run of ``tenant`` is refused, which has ``here`` runs in the lane; None when it is taken.

        One that is not ``new`` may be a run that the previous owner took: only what that one cannot have taken may be refused.
        """


def takes_all(tenant: str, here: int, *, new: bool) -> Reason | None:  # noqa: ARG001  # the port's signature
    """Refuse nobody."""
    return None


class SnapshotUnreadableError(Exception):
    """A snapshot is none that this version reads; its lane stops until someone looks."""


class ObjectUnavailableError(Exception):
    """An object, or the range asked for, is not there or cannot be read; trying again would not help."""


class StoreAwayError(Exception):
    """The store is away, slow, or refuses the credentials: another try may succeed. The message says what it said, and no secret."""


class Objects(Protocol):
    """The object store's side of batch chunks. Methods block; they are called in threads."""

    def read(self, ref: DataRef) -> bytes:
        """The bytes that ``ref`` names. Raises ``ObjectUnavailableError`` and ``StoreAwayError``."""

    def remove(self, run: RunKey) -> None:
        """Delete a run's normalised object; one that is gone is fine. Raises ``StoreAwayError``."""

    def works(self) -> bool:
        """Whether the store takes and gives an object of this process's own."""


class Sessions(Protocol):
    """Makes sessions: wired once a process, in the composition root."""

    def new(self, key: RunKey, latency: Latency) -> LaneSession:
        """A run's first record has come."""

    def restore(self, snapshot: bytes) -> LaneSession:
        """Continue from a snapshot. Raises ``SnapshotUnreadableError``."""
