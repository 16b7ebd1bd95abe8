"""Connects planner and sessions: collects candidates, starts a batch, delivers its results or requeues its windows.

The sessions decide which windows are requeued (alone) and which are abandoned (``kaption.domain.run.windows``).
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from typing import Final as Const

from kaption.adapters.settings import Settings
from kaption.domain.decoding.port import Decoded, Window
from kaption.domain.pool.plan import Batch, Candidate
from kaption.domain.records import RunKey
from kaption_gpu.engine.executor import Cause
from kaption_gpu.lanes.memory import LaneMemory

log = logging.getLogger(__name__)

#: A batch hangs when it takes this multiple of the estimate, and at least ``Settings.executor_hang_seconds``.
_TIMES: Const = 20


@dataclass(frozen=True, slots=True)
class BatchStats:
    """One decoded batch, its results, and the seconds that it took on the device."""

    batch: Batch
    results: tuple[Decoded, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Recovered:
    """A batch that failed or hung, with the numbers of its requeued and of its abandoned windows."""

    batch: Batch
    again: int
    given_up: int


def _owner(candidate: Candidate) -> tuple[LaneMemory, RunKey]:
    """The memory and run of a candidate. The lane may have begun again since then, with another memory."""
    owner: Any = candidate.owner
    memory: LaneMemory = owner[0]
    key: RunKey = owner[1]
    return memory, key


def limit(settings: Settings, estimate: float) -> float:
    """Seconds after which a batch with this ``estimate``, in seconds, counts as hung."""
    return min(settings.hang_seconds, max(settings.executor_hang_seconds, _TIMES * estimate))


def waiting(memories: Iterable[tuple[LaneMemory, int]]) -> list[Candidate]:
    """The windows that the sessions of all lanes want decoded. Each memory comes with its broker's time, in ms since 1970."""
    return [
        Candidate(
            (memory, key), w.window_id, key.tenant, memory.urgency(key, w), w.kind, w.seconds, w.overdue_s, w.alone
        )
        for memory, now_ms in memories
        for key, w in memory.wants(now_ms)
    ]


def begin(batch: Batch) -> list[Window]:
    """Copy the windows' audio, and mark them in flight."""
    owners = ((_owner(candidate), candidate.window) for candidate in batch.windows)
    return [memory.begin(key, window) for (memory, key), window in owners]


def apply(batch: Batch, results: Sequence[Decoded], now_ms: int) -> None:
    """Hand the results, which are in the batch's order, to their sessions."""
    for candidate, decoded in zip(batch.windows, results, strict=True):
        memory, key = _owner(candidate)
        memory.apply(key, candidate.window, decoded, now_ms)


def put_back(batch: Batch) -> None:
    """Requeue all windows of ``batch``, unchanged: no executor decoded it."""
    for candidate in batch.windows:
        memory, key = _owner(candidate)
        memory.abandon(key, candidate.window)


def recover(batch: Batch, cause: Cause) -> Recovered:
    """Report to the sessions that the backend failed or hung on ``batch``."""
    again = 0
    for candidate in batch.windows:
        memory, key = _owner(candidate)
        if memory.fail(key, candidate.window, hung=cause is Cause.HUNG):
            again += 1
        else:
            figures = {"lane": str(memory.source), "kind": candidate.kind.value, "seconds": round(candidate.seconds, 1)}
            log.error("window_abandoned", extra=figures)
    log.warning("windows_requeued", extra={"cause": cause.value, "windows": again})
    return Recovered(batch, again, len(batch.windows) - again)
