"""A worker whose reading stands still ends, to be started again; one that has nothing to read, or is slow, does not."""

import pytest
from aiokafka import TopicPartition

from kaption_gpu.watchdog import StuckError, Watchdog

ONE, OTHER = TopicPartition("audio.live.v1", 0), TopicPartition("audio.live.v1", 1)


def watch(*offsets: int | None, every: float = 6) -> None:
    """Look at a lane that stands at these offsets, one after the other; polling goes on."""
    dog = Watchdog(10)
    for number, offset in enumerate(offsets):
        dog.look(number * every, number * every, {ONE: offset, OTHER: number})


def test_polls_that_do_not_end_are_stuck() -> None:
    dog = Watchdog(10)
    dog.look(9.0, 0.0, {})
    with pytest.raises(StuckError, match="poll"):
        dog.look(11.0, 0.0, {})


def test_a_lane_that_stands_still_with_records_to_read_is_stuck() -> None:
    watch(5, 5)
    with pytest.raises(StuckError, match="lane"):
        watch(5, 5, 5)


def test_a_lane_that_reads_or_has_nothing_to_read_is_not() -> None:
    watch(*range(10))
    watch(*[None] * 10)
    watch(5, 5, None, 5, 5, None, 5, 5)


def test_a_lane_that_left_and_came_back_begins_anew() -> None:
    dog = Watchdog(10)
    dog.look(0.0, 0.0, {ONE: 5})
    dog.look(6.0, 6.0, {})
    dog.look(12.0, 12.0, {ONE: 5})
    dog.look(18.0, 18.0, {ONE: 5})
