"""How far the pool is behind, and what it therefore lets go: partials, then files, then new live runs (promise 5).

The planner thins partials and holds files back by itself, since finals lead and live leads. What is decided here is when that
counts as a step, when new live runs are refused, and whose. Finals are never let go. Pure: times come in as numbers.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final as Const


class Step(IntEnum):
    """What is let go; each step includes those before it."""

    NOTHING = 0
    PARTIALS_THINNED = 1
    FILES_WAIT = 2
    RUNS_REFUSED = 3


@dataclass(frozen=True, slots=True)
class Signs:
    """What is measured, about once a second.

    ``busy``: share of the executors' time that they computed; ``partial_s``, ``final_s``: the longest waits of live windows;
    ``reading_s``: how far the newest record read lies behind the clock; ``files``: whether files wait beside live windows.
    """

    busy: float
    partial_s: float
    final_s: float
    reading_s: float
    files: bool

    @property
    def late_s(self) -> float:
        """By how much the slowest part of the way to a final is late."""
        return max(self.final_s, self.reading_s)


#: Partials that wait longer than this are fewer than people were promised (seconds).
PARTIAL_SECONDS: Const = 1.0
#: New runs are refused when finals are later than this and have not caught up for ``HOLD_SECONDS``, with a busy device; or reading is.
LATE_SECONDS: Const = 10.0
BUSY: Const = 0.8
#: They are taken again when finals are no later than this.
EARLY_SECONDS: Const = 2.0
#: How long a sign must last; a lower step is taken only after so long.
HOLD_SECONDS: Const = 10.0


def below_share(tenant: str, runs: Mapping[str, int]) -> bool:
    """Whether ``tenant`` has fewer of the open ``runs``, counted by tenant, than an equal share: then it is not what fills the pool (promise 7)."""
    return runs.get(tenant, 0) * len({tenant, *runs}) < sum(runs.values())


class Overload:
    """The step that the pool is on. ``observe`` moves it."""

    def __init__(self) -> None:
        self.step = Step.NOTHING
        self._seen: deque[tuple[float, Signs]] = deque()
        self._lower_since: float | None = None

    @property
    def refuses(self) -> bool:
        """Whether new live runs are refused, but of tenants that are ``below_share``."""
        return self.step is Step.RUNS_REFUSED

    @property
    def finals_late(self) -> bool:
        """Whether a final had been waiting for ``EARLY_SECONDS`` when it was last looked; how far reading is behind does not count."""
        return bool(self._seen) and self._seen[-1][1].final_s > EARLY_SECONDS

    def observe(self, now: float, signs: Signs) -> bool:
        """Take the signs at second ``now`` of any clock that goes forward; whether the step has changed."""
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
        """The step that the signs call for, whatever the present one is."""
        if self.refuses and signs.late_s > EARLY_SECONDS:
            return Step.RUNS_REFUSED
        if self._falls_behind(now):
            return Step.RUNS_REFUSED
        if signs.files and signs.partial_s > PARTIAL_SECONDS:
            return Step.FILES_WAIT
        return Step.PARTIALS_THINNED if signs.partial_s > PARTIAL_SECONDS else Step.NOTHING

    def _falls_behind(self, now: float) -> bool:
        """Late for the whole while, and no less late than at its beginning: finals of a busy device, or reading.

        After an outage the pool is late too, but it catches up: a full pool does not. Late finals of an idle device are somebody
        else's fault. Late reading is not, whatever the device does: then it is the records that are too many.
        """
        since, first = self._seen[0]
        last = self._seen[-1][1]
        lasting = all(
            signs.reading_s > LATE_SECONDS or (signs.final_s > LATE_SECONDS and signs.busy >= BUSY)
            for _, signs in self._seen
        )
        return now - since >= HOLD_SECONDS and lasting and last.late_s >= first.late_s
