"""The runs of a lane that are over: what comes of them again is a repeat, or is dead-lettered.

One is remembered for as long as the log may hold its audio. Each takes some hundred bytes, and there may be millions in a
month.
"""

from dataclasses import dataclass
from typing import Final as Const

from kaption.domain.records import Latency, RunKey
from kaption_gpu.lanes.records import TOPIC_OF
from kaption_schemas.topics import HOUR_MS

#: Milliseconds beyond the audio's retention: the broker looks every few minutes, and takes whole segments.
_LONGER_MS: Const = HOUR_MS


def keep_ms(latency: Latency) -> int:
    """For how long after its last record a closed run is of use, in milliseconds."""
    return TOPIC_OF[latency].retention_ms + _LONGER_MS


@dataclass(slots=True)
class Closed:
    """A run that is over: its records before offset ``settled`` are covered (those until ``until_ms``, in a log that was cut off), and
    chunks before ``next_sequence`` were taken, the newest record of which the broker received at ``newest_ms``. ``heard_ms`` is when something came of it last.
    """

    settled: int
    next_sequence: int
    newest_ms: int
    heard_ms: int
    until_ms: int | None = None

    def covers(self, offset: int, timestamp_ms: int) -> bool:
        """Whether a record at ``offset``, of that time, is covered."""
        return offset < self.settled and (self.until_ms is None or timestamp_ms <= self.until_ms)


class ClosedRuns:
    """By their keys; the one that was heard of longest ago comes first."""

    def __init__(self, latency: Latency) -> None:
        self._keep_ms = keep_ms(latency)
        self._runs: dict[RunKey, Closed] = {}

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, key: RunKey) -> bool:
        return key in self._runs

    def add(self, key: RunKey, closed: Closed) -> None:
        """Remember a run. They should come in the order of ``heard_ms``."""
        self._runs[key] = closed

    def heard(self, key: RunKey, timestamp_ms: int) -> Closed | None:
        """The run, if it is closed, of which a record of that time has come."""
        closed = self._runs.get(key)
        if closed is not None and timestamp_ms > closed.heard_ms:
            closed.heard_ms = timestamp_ms
            self._runs[key] = self._runs.pop(key)
        return closed

    def forget(self, now_ms: int) -> None:
        """Forget those whose audio the log no longer holds."""
        while self._runs:
            key, closed = next(iter(self._runs.items()))
            if now_ms - closed.heard_ms <= self._keep_ms:
                return
            del self._runs[key]
