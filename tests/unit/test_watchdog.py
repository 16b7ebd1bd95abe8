"""What has work and does none is stuck; what is idle, or slow, is not."""

import pytest
from faust.types import TP

from kaption.service.watchdog import Watchdog
from kaption_schemas.errors import StuckError
from kaption_streams.standing import Standing

PARTITION = TP("media.events.v1", 0)


def watch(*places: int | None, every: float = 6) -> None:
    """Look at something that stands at these places, one after the other; another one gets on."""
    dog = Watchdog(10)
    for number, place in enumerate(places):
        dog.look(number * every, {"one": place, "other": number})


def test_standing_still_with_work_is_stuck() -> None:
    watch(5, 5)
    with pytest.raises(StuckError, match="one"):
        watch(5, 5, 5)


def test_what_gets_on_or_has_nothing_to_do_is_not() -> None:
    watch(*range(10))
    watch(*[None] * 10)
    watch(5, 5, None, 5, 5, None, 5, 5)


def test_what_left_and_came_back_begins_anew() -> None:
    dog = Watchdog(10)
    dog.look(0.0, {"one": 5})
    dog.look(6.0, {})
    dog.look(12.0, {"one": 5})
    dog.look(18.0, {"one": 5})


def standing(position: int = 5, end: int = 5, pending: int = 0, taken: int = 5) -> Standing:
    return Standing({PARTITION: (position, end)}, pending, taken)


def look(*standings: Standing) -> None:
    """The same of an agent, where it stands as it says."""
    dog = Watchdog(10)
    for number, one in enumerate(standings):
        dog.look(number * 6, {"agent": one.mark})


@pytest.mark.parametrize(
    "stuck",
    [standing(position=5, end=9), standing(pending=3)],
    ids=["nothing is read", "nothing is acknowledged"],
)
def test_an_agent_that_has_work_and_does_none_is_stuck(stuck: Standing) -> None:
    look(stuck, stuck)
    with pytest.raises(StuckError, match="agent"):
        look(stuck, stuck, stuck)


def test_an_idle_agent_is_not_stuck() -> None:
    look(*[standing()] * 10)


@pytest.mark.parametrize("field", ["position", "taken", "pending"])
def test_any_step_of_an_agent_counts(field: str) -> None:
    look(*[standing(**({"end": 99, "pending": 3} | {field: step + 1})) for step in range(10)])


def test_work_that_has_just_come_is_not_late() -> None:
    look(*[standing()] * 5, standing(end=9), standing(end=9))
