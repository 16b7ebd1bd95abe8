"""Decides what an overloaded pool sheds: partials, then files, then new live runs (promise 5). It never sheds finals.

The planner thins partials and delays files by itself, since finals and live work go first. This module decides when that
counts as a step, and when and for whom the pool rejects new live runs. It is pure: times are arguments.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final as Const


class Step(IntEnum):
    """The work that the pool sheds; each step includes those before it."""

    NOTHING = 0
    PARTIALS_THINNED = 1
    FILES_WAIT = 2
    RUNS_REFUSED = 3


@dataclass(frozen=True, slots=True)
class Signs:
    """Signs of load, measured about once a second.

    ``busy``: share of the executors' time spent computing; ``partial_s``, ``final_s``: the longest waits of live windows;
    ``reading_s``: how far the newest record read is behind the clock; ``files``: whether files and live windows both wait.
    """

    busy: float
    partial_s: float
    final_s: float
    reading_s: float
    files: bool

    @property
    def late_s(self) -> float:
        """Seconds by which the slowest part of the way to a final is late."""
        return max(self.final_s, self.reading_s)


#: Seconds that a partial may wait; beyond, readers get fewer partials than promised.
PARTIAL_SECONDS: Const = 1.0
#: The pool rejects new runs when finals on a busy device, or reading, are later than this and do not catch up for
#: ``HOLD_SECONDS``.
LATE_SECONDS: Const = 10.0
BUSY: Const = 0.8
#: The pool accepts new runs again when finals are no later than this.
EARLY_SECONDS: Const = 2.0
#: How long a sign must last, also before a lower step.
HOLD_SECONDS: Const = 10.0


def below_share(tenant: str, runs: Mapping[str, int]) -> bool:
    """Whether ``tenant`` has less than an equal share of the open ``runs``, counted by tenant, and so does not fill the
    pool (promise 7).
    """
    return runs.get(tenant, 0) * len({tenant, *runs}) < sum(runs.values())


class Overload:
    """The pool's present step. ``observe`` changes it."""

    def __init__(self) -> None:
        self.step = Step.NOTHING
        self._seen: deque[tuple[float, Signs]] = deque()
        self._lower_since: float | None = None

    @property
    def refuses(self) -> bool:
        """Whether the pool rejects new live runs, except those of tenants that are ``below_share``."""
        return self.step is Step.RUNS_REFUSED

    @property
    def finals_late(self) -> bool:
        """Whether a final had waited for ``EARLY_SECONDS`` at the last ``observe``; late reading does not count."""
        return bool(self._seen) and self._seen[-1][1].final_s > EARLY_SECONDS

    def observe(self, now: float, signs: Signs) -> bool:
        """Take the signs at second ``now`` of any monotonic clock; return whether the step has changed."""
        self._seen.append((now, signs))
        while len(self._seen) > 1 and now - self._seen[1][0] >= HOLD_SECONDS:
            self._seen.popleft()
        before, fitting = self.step, self._fitting(now, signs)
        if fitting >= self.step:
            self.step, self._lower_since = fitting, None
        elif self._lower_since is None:
            self._lower_since = now
        elif now - self._lower_since >= HOLD_SECONDS:
            self.step, self._lower_since = fitting, None
        return self.step is not before

    def _fitting(self, now: float, signs: Signs) -> Step:
        """Return the step that fits the signs, whatever the present one is."""
        if self.refuses and signs.late_s > EARLY_SECONDS:
            return Step.RUNS_REFUSED
        if self._falls_behind(now):
            return Step.RUNS_REFUSED
        if signs.files and signs.partial_s > PARTIAL_SECONDS:
            return Step.FILES_WAIT
        return Step.PARTIALS_THINNED if signs.partial_s > PARTIAL_SECONDS else Step.NOTHING

    def _falls_behind(self, now: float) -> bool:
        """Whether finals of a busy device, or reading, were late all the while and are no less late than at its beginning.

        After an outage the pool is late too, but it catches up; a full pool does not. On an idle device late finals have
        another cause. Late reading counts with any device: then there are too many records.
        """
        since, first = self._seen[0]
        last = self._seen[-1][1]
        lasting = all(
            signs.reading_s > LATE_SECONDS or (signs.final_s > LATE_SECONDS and signs.busy >= BUSY)
            for _, signs in self._seen
        )
        return now - since >= HOLD_SECONDS and lasting and last.late_s >= first.late_s
