"""When the pool refuses new runs, and when it takes them again."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaption.domain.pool.overload import (
    BUSY,
    EARLY_SECONDS,
    HOLD_SECONDS,
    LATE_SECONDS,
    Overload,
    Signs,
    Step,
    below_share,
)

CALM = Signs(busy=0.3, partial_s=0.1, final_s=0.1, reading_s=0.05, files=False)


def late(seconds: float, busy: float = 1.0) -> Signs:
    return Signs(busy=busy, partial_s=9.0, final_s=seconds, reading_s=0.1, files=False)


SIGNS = [CALM, late(5), late(LATE_SECONDS + 1), late(LATE_SECONDS + 2), late(60, busy=0.5)]


def steps(signs: Callable[[int], Signs], seconds: int, pool: Overload | None = None) -> list[Step]:
    """The step at each second."""
    pool = pool or Overload()
    found = []
    for second in range(seconds):
        pool.observe(float(second), signs(second))
        found.append(pool.step)
    return found


def test_a_pool_that_falls_behind_refuses_after_a_while() -> None:
    found = steps(lambda second: late(LATE_SECONDS + 1 + second), 30)
    assert found[0] is Step.PARTIALS_THINNED
    assert found.index(Step.RUNS_REFUSED) == HOLD_SECONDS
    assert set(found[10:]) == {Step.RUNS_REFUSED}


def test_reading_that_falls_behind_counts_as_well() -> None:
    found = steps(lambda second: Signs(1.0, 0.1, 0.1, LATE_SECONDS + second, files=False), 12)
    assert found[-1] is Step.RUNS_REFUSED


def test_records_that_are_too_many_to_read_are_seen_whatever_the_device_does() -> None:
    found = steps(lambda second: Signs(0.1, 0.1, 0.1, LATE_SECONDS + second, files=False), 12)
    assert found[-1] is Step.RUNS_REFUSED
    caught_up = steps(lambda second: Signs(0.1, 0.1, 0.1, max(0.0, 90.0 - 3 * second), files=False), 60)
    assert Step.RUNS_REFUSED not in caught_up


def test_a_pool_that_catches_up_after_an_outage_refuses_nobody() -> None:
    assert Step.RUNS_REFUSED not in steps(lambda second: late(60 - 0.5 * second), 60)


def test_late_records_of_an_idle_device_are_somebody_elses_fault() -> None:
    assert Step.RUNS_REFUSED not in steps(lambda _: late(60, busy=0.2), 60)


def test_runs_are_taken_again_only_when_finals_are_early_and_stay_so() -> None:
    pool = Overload()
    steps(lambda second: late(LATE_SECONDS + second), 12, pool)
    assert pool.refuses
    for second in range(12, 40):
        pool.observe(float(second), late(EARLY_SECONDS + 1))
    assert pool.refuses
    pool.observe(40.0, CALM)
    assert pool.refuses
    for second in range(41, 52):
        pool.observe(float(second), CALM)
    assert pool.step is Step.NOTHING


@pytest.mark.parametrize(("files", "step"), [(False, Step.PARTIALS_THINNED), (True, Step.FILES_WAIT)])
def test_partials_and_files_go_before_runs(files: bool, step: Step) -> None:
    signs = Signs(busy=1.0, partial_s=3.0, final_s=0.5, reading_s=0.1, files=files)
    assert set(steps(lambda _: signs, 60)) == {step}


@given(st.lists(st.sampled_from([CALM, late(LATE_SECONDS + 1), late(5)]), min_size=1, max_size=80))
def test_the_step_falls_at_most_once_a_while(signs: list[Signs]) -> None:
    found = steps(lambda second: signs[second], len(signs))
    falls = [n for n in range(1, len(found)) if found[n] < found[n - 1]]
    assert all(b - a >= HOLD_SECONDS for a, b in itertools.pairwise(falls))


@given(st.lists(st.tuples(st.sampled_from(SIGNS), st.integers(1, 25)), max_size=8))
def test_runs_are_refused_last_and_only_while_finals_are_late(lasting: list[tuple[Signs, int]]) -> None:
    """In every sequence the pool sheds partials before runs, and rejects no run for a moment's lateness."""
    signs = [sign for sign, seconds in lasting for _ in range(seconds)]
    for second, step in enumerate(found := steps(lambda second: signs[second], len(signs))):
        since = signs[max(0, second - round(HOLD_SECONDS)) : second + 1]
        if step is Step.RUNS_REFUSED and (second == 0 or found[second - 1] is not Step.RUNS_REFUSED):
            assert len(since) > HOLD_SECONDS
            assert all(s.late_s > LATE_SECONDS and s.busy >= BUSY for s in since)
            assert found[second - 1] is not Step.NOTHING, "partials go first"


def test_late_reading_is_no_late_final() -> None:
    pool = Overload()
    assert not pool.finals_late
    pool.observe(0.0, late(EARLY_SECONDS + 1))
    assert pool.finals_late
    pool.observe(1.0, Signs(1.0, 9.0, EARLY_SECONDS, LATE_SECONDS, files=False))
    assert not pool.finals_late, "reading less often would only make it later"


def test_a_full_pool_refuses_whoever_fills_it() -> None:
    """The run that is asked about counts already."""
    assert not below_share("a", {"a": 20}), "nobody else is there"
    assert below_share("b", {"a": 20, "b": 1})
    assert not below_share("a", {"a": 21, "b": 1})
    assert [below_share("b", {"a": 20, "b": runs}) for runs in (19, 20, 21)] == [True, False, False]
    assert below_share("c", {"a": 20, "b": 20, "c": 19})
