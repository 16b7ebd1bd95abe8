"""An agent that has work and does none is stuck; one that is idle, or slow, is not."""

import pytest
from faust.types import TP

from kaption_streams.progress import Progress, Standing, StuckError

PARTITION = TP("media.events.v1", 0)


class Clock:
    """Time as the test sets it."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def standing(position: int = 5, end: int = 5, pending: int = 0, taken: int = 5) -> Standing:
    return Standing({PARTITION: (position, end)}, pending, taken)


def look(*standings: Standing, every: float = 6) -> None:
    clock = Clock()
    progress = Progress(10, clock)
    for one in standings:
        clock.now += every
        progress.look(one)


@pytest.mark.parametrize(
    "stuck",
    [standing(position=5, end=9), standing(pending=3)],
    ids=["nothing is read", "nothing is acknowledged"],
)
def test_standing_still_with_work_is_stuck(stuck: Standing) -> None:
    look(stuck, stuck)
    with pytest.raises(StuckError):
        look(stuck, stuck, stuck)


def test_an_idle_agent_is_not_stuck() -> None:
    look(*[standing()] * 10)


@pytest.mark.parametrize("field", ["position", "taken", "pending"])
def test_any_step_counts(field: str) -> None:
    look(*[standing(**({"end": 99, "pending": 3} | {field: step + 1})) for step in range(10)])


def test_work_that_has_just_come_is_not_late() -> None:
    look(*[standing()] * 5, standing(end=9), standing(end=9))
