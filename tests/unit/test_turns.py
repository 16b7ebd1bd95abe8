"""Slots are shared fairly between tenants, whatever each of them sends."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from kaption.domain.intake.turns import Turns


def taken(turns: Turns[int]) -> list[str]:
    """The tenants of all that may begin now."""
    out = []
    while (turn := turns.take()) is not None:
        out.append(turn[0])
    return out


def test_a_tenant_alone_has_every_slot_and_its_order() -> None:
    turns: Turns[int] = Turns(2)
    for item in range(4):
        turns.add("acme", item)
    assert [turns.take(), turns.take(), turns.take()] == [("acme", 0), ("acme", 1), None]
    turns.done("acme", 5)
    turns.add("acme", 9, first=True)
    assert turns.take() == ("acme", 9)
    assert len(turns) == 2


def test_who_has_nothing_in_work_does_not_wait_for_the_films_of_others() -> None:
    turns: Turns[int] = Turns(2)
    for item in range(9):
        turns.add("acme", item)
    assert taken(turns) == ["acme", "acme"]
    turns.add("globex", 0)
    turns.add("globex", 1)
    assert taken(turns) == ["globex"], "one, though all slots are taken, and not a second"
    turns.add("initech", 0)
    turns.add("umbrella", 0)
    assert taken(turns) == ["initech"], "no more than twice the slots"
    turns.done("acme", 600)
    assert taken(turns) == ["umbrella"]
    for tenant in ("globex", "initech", "umbrella"):
        turns.done(tenant, 1)
    assert taken(turns) == ["globex"], "the free slot is not acme's, which has one in work"


def test_time_is_shared_and_not_objects() -> None:
    turns: Turns[int] = Turns(1)
    for item in range(100):
        turns.add("films", item)
        turns.add("clips", item)
    spent: Counter[str] = Counter()
    for _ in range(60):
        running = taken(turns)
        for tenant in running:
            seconds = 20 if tenant == "films" else 1
            spent[tenant] += seconds
            turns.done(tenant, seconds)
    assert spent["clips"] >= 50


def test_who_was_away_saves_up_nothing() -> None:
    turns: Turns[int] = Turns(1)
    turns.add("busy", 0)
    for item in range(1, 50):
        turns.add("busy", item)
        assert turns.take() is not None
        turns.done("busy", 100)
    for item in range(50):
        turns.add("busy", item)
        turns.add("late", item)
    order = []
    for _ in range(8):
        for tenant in taken(turns):
            order.append(tenant)
            turns.done(tenant, 100)
    assert order.count("busy") == order.count("late") == 8


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 50)), max_size=60), st.integers(1, 4))
def test_everything_is_taken_once_and_never_more_than_twice_the_slots(items: list[tuple[str, int]], slots: int) -> None:
    turns: Turns[int] = Turns(slots)
    for number, (tenant, _) in enumerate(items):
        turns.add(tenant, number)
    seen: list[int] = []
    running: list[tuple[str, int]] = []
    while len(seen) < len(items):
        while (turn := turns.take()) is not None:
            running.append(turn)
            seen.append(turn[1])
            assert turns.working == len(running) <= 2 * slots
        tenant, number = running.pop(0)
        turns.done(tenant, items[number][1])
    assert sorted(seen) == list(range(len(items)))
