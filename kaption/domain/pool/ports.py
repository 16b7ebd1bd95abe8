"""Defines what the pool needs of sessions and the object store, so that lanes and loop run in tests without a model."""

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
        """Seconds for which it has waited."""

    @property
    def alone(self) -> bool:
        """Whether to decode it by itself, since it may make its batch fail."""


class LaneSession(Protocol):
    """One run with all its channels: a state machine without I/O, clock or model. Times are ms since 1970.

    ``kaption.domain.run.session`` implements it.
    """

    epoch: int

    @property
    def key(self) -> RunKey:
        """The run."""

    @property
    def latency(self) -> Latency:
        """Live or batch."""

    @property
    def options(self) -> RunOptions:
        """The run's options, as far as they are known."""

    @property
    def closed(self) -> bool:
        """Whether every output of the run has been returned."""

    @property
    def ended(self) -> bool:
        """Whether no more audio comes; only the last finals are left."""

    @property
    def next_sequence(self) -> int:
        """The awaited sequence: all before it arrived, or are lost."""

    @property
    def newest_ms(self) -> int:
        """The broker's append time of the newest record taken, in ms since 1970; -1 before the first."""

    @property
    def last_offset(self) -> int:
        """Offset of the last record fed, also to an earlier owner; -1 before the first."""

    @property
    def undecided(self) -> Collection[int]:
        """Offsets of records that were taken and may still be dead-lettered."""

    def feed(self, record: AudioRecord) -> Sequence[Output]:
        """Take the run's next record."""

    def tick(self, now_ms: int) -> Sequence[Output]:
        """Advance the idle timers to ``now_ms``."""

    def close(self, reason: Reason, now_ms: int) -> None:
        """Finish what is open; the outputs come through ``wants``, ``apply`` and ``tick``."""

    def give_up(self, reason: Reason) -> Sequence[Output]:
        """Close at once, after another call raised: what was published stands, and a gap says what was not."""

    def note_loss(self) -> None:
        """Note that the log lost records since the session was saved; the next gap stands for them."""

    def wants(self, now_ms: int) -> Sequence[Wanted]:
        """Return the windows that should be decoded and are not in flight."""

    def begin(self, window_id: int) -> Window:
        """Copy a wanted window's audio out and mark it in flight."""

    def abandon(self, window_id: int) -> None:
        """Requeue a window in flight."""

    def fail(self, window_id: int, *, hung: bool) -> Sequence[Output] | None:
        """Handle a window whose batch failed or hung: requeue it to be decoded alone (None), or abandon it."""

    def apply(self, window_id: int, decoded: Decoded, now_ms: int) -> Sequence[Output]:
        """Take a window's result."""

    def settled_offset(self) -> int | None:
        """Offset of the oldest record that no final covers yet; None when all are covered."""

    def snapshot(self) -> bytes:
        """Return what ``restore`` needs, consistent with ``settled_offset`` and the durable outputs returned so far."""

    def drafted(self) -> None:
        """Note that a transaction begins with the outputs returned so far."""

    def committed(self) -> None:
        """Note that the last drafted transaction is committed."""

    def backlog_seconds(self) -> float:
        """Seconds of audio that no final covers yet."""

    def undecoded(self) -> bool:
        """Whether a closed segment waits for its decode or is being decoded, so that the backlog shrinks without more audio."""


class Admission(Protocol):
    """Admission control: decides at a live run's first record, when the run counts as open."""

    def __call__(self, tenant: str, here: int, *, new: bool) -> Reason | None:
        """Return why a run of ``tenant``, which has ``here`` runs in the lane, is refused; None if it is accepted.

        If the run is not ``new``, the previous owner may have accepted it. Refuse it only if that owner cannot have.
        """


def takes_all(tenant: str, here: int, *, new: bool) -> Reason | None:  # noqa: ARG001  # the port's signature
    """Accept every run."""
    return None


class Objects(Protocol):
    """Reads and removes the objects of batch chunks. Methods block; call them in threads."""

    def read(self, ref: DataRef) -> bytes:
        """Read the bytes that ``ref`` names. Raises ``RefusedError`` and ``StoreError``."""

    def remove(self, run: RunKey) -> None:
        """Delete a run's normalised object, if it is there. Raises ``StoreError``."""

    def works(self) -> bool:
        """Whether this process can write an object to the store and read it back."""


class Sessions(Protocol):
    """Makes sessions; the composition root makes one per process."""

    def new(self, key: RunKey, latency: Latency) -> LaneSession:
        """Make the session of a run at its first record."""

    def restore(self, snapshot: bytes) -> LaneSession:
        """Continue from a snapshot. Raises ``IncompatibleError``."""
