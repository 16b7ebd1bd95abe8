"""Remembers the closed runs of a lane: further records of these are repeats, or are dead-lettered.

A closed run is remembered for as long as the log may hold its audio. Each takes some hundred bytes, and a month may have
millions.
"""

from dataclasses import dataclass
from typing import Final as Const

from kaption.domain.records import Latency, RunKey
from kaption_gpu.lanes.records import TOPIC_OF
from kaption_schemas.topics import HOUR_MS

#: Milliseconds beyond the audio's retention: the broker checks every few minutes, and deletes whole log segments.
_LONGER_MS: Const = HOUR_MS


def keep_ms(latency: Latency) -> int:
    """Milliseconds after its last record for which a closed run is remembered."""
    return TOPIC_OF[latency].retention_ms + _LONGER_MS


@dataclass(slots=True)
class Closed:
    """A closed run.

    Its records before offset ``settled`` are covered; in a log that was cut off, only those until ``until_ms``. The run took
    the chunks before ``next_sequence``, and the broker received the newest of its records at ``newest_ms``. Its last record
    came at ``heard_ms``.
    """

    settled: int
    next_sequence: int
    newest_ms: int
    heard_ms: int
    until_ms: int | None = None

    def covers(self, offset: int, timestamp_ms: int) -> bool:
        """Whether a record at ``offset`` with this timestamp is covered."""
        return offset < self.settled and (self.until_ms is None or timestamp_ms <= self.until_ms)


class ClosedRuns:
    """Closed runs by key. The one with the oldest last record comes first."""

    def __init__(self, latency: Latency) -> None:
        self._keep_ms = keep_ms(latency)
        self._runs: dict[RunKey, Closed] = {}

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, key: RunKey) -> bool:
        return key in self._runs

    def add(self, key: RunKey, closed: Closed) -> None:
        """Remember a run. Runs should be added in the order of ``heard_ms``."""
        self._runs[key] = closed

    def heard(self, key: RunKey, timestamp_ms: int) -> Closed | None:
        """The closed run of a record that has come with this timestamp. None if the run is not closed."""
        closed = self._runs.get(key)
        if closed is not None and timestamp_ms > closed.heard_ms:
            closed.heard_ms = timestamp_ms
            self._runs[key] = self._runs.pop(key)
        return closed

    def forget(self, now_ms: int) -> None:
        """Forget runs with audio that the log no longer holds."""
        while self._runs:
            key, closed = next(iter(self._runs.items()))
            if now_ms - closed.heard_ms <= self._keep_ms:
                return
            del self._runs[key]
