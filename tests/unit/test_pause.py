"""How often a consumer asks: a moment after records, less and less often without, and seldom where it is long quiet."""

import pytest

from kaption.adapters.kafka.fetching import Pause


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_question_waits_a_moment_after_records() -> None:
    clock = Clock()
    pause = Pause(clock)
    clock.now += 1
    assert pause.before() <= 0
    pause.records()
    assert pause.before() == pytest.approx(0.01)
    clock.now += 0.02
    assert pause.before() <= 0


def test_empty_answers_make_it_slower_and_records_fast_again() -> None:
    pause = Pause(Clock())
    assert [pause.after_nothing() for _ in range(7)] == [0.005, 0.01, 0.02, 0.04, 0.08, 0.1, 0.1]
    pause.records()
    assert pause.after_nothing() == 0.005


def test_where_it_is_long_quiet_it_asks_seldom_until_records_come() -> None:
    clock = Clock()
    pause = Pause(clock)
    clock.now += 11
    assert pause.after_nothing() == 0.25
    pause.records()
    assert pause.after_nothing() == 0.005
