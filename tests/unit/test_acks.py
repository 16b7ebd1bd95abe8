"""The window acknowledges in order, bounds what is in flight, and acknowledges nothing after a failure."""

import asyncio

import pytest

from kaption_streams.acks import Window


def unexpected(error: BaseException) -> None:
    raise AssertionError("no delivery of this test fails") from error


def pending() -> "asyncio.Future[None]":
    return asyncio.get_running_loop().create_future()


async def add(window: Window, acked: list[int], number: int, *deliveries: "asyncio.Future[None]") -> None:
    await window.add(deliveries, lambda: acked.append(number))


async def test_acks_in_the_order_of_events() -> None:
    window, acked = Window(unexpected), list[int]()
    first, second = pending(), pending()
    await add(window, acked, 1, first)
    await add(window, acked, 2, second)
    second.set_result(None)
    await asyncio.sleep(0.01)
    assert acked == []
    first.set_result(None)
    await asyncio.wait_for(window.settle(), 1)
    assert acked == [1, 2]


async def test_settling_ends_though_more_comes() -> None:
    """An agent that is to end is read to meanwhile."""
    window, acked = Window(unexpected), list[int]()
    first, second = pending(), pending()
    await add(window, acked, 1, first)
    settled = asyncio.create_task(window.settle())
    await asyncio.sleep(0)
    await add(window, acked, 2, second)
    first.set_result(None)
    await asyncio.wait_for(settled, 1)
    assert acked == [1]


async def test_an_event_waits_for_all_its_deliveries() -> None:
    window, acked = Window(unexpected), list[int]()
    one, two = pending(), pending()
    await add(window, acked, 1, one, two)
    one.set_result(None)
    await asyncio.sleep(0.01)
    assert acked == []
    two.set_result(None)
    await asyncio.wait_for(window.settle(), 1)
    assert acked == [1]


async def test_an_event_without_deliveries_waits_its_turn() -> None:
    window, acked = Window(unexpected), list[int]()
    first = pending()
    await add(window, acked, 1, first)
    await add(window, acked, 2)
    await asyncio.sleep(0.01)
    assert acked == []
    first.set_result(None)
    await asyncio.wait_for(window.settle(), 1)
    assert acked == [1, 2]


async def test_a_full_window_makes_the_next_event_wait() -> None:
    window, acked = Window(unexpected, count=2), list[int]()
    futures = [pending() for _ in range(3)]
    await add(window, acked, 0, futures[0])
    await add(window, acked, 1, futures[1])
    third = asyncio.create_task(add(window, acked, 2, futures[2]))
    await asyncio.sleep(0.01)
    assert not third.done()
    futures[0].set_result(None)
    await asyncio.wait_for(third, 1)
    assert len(window) == 2
    for future in futures[1:]:
        future.set_result(None)
    await asyncio.wait_for(window.settle(), 1)
    assert acked == [0, 1, 2]


async def test_large_events_fill_a_window_and_one_that_is_larger_goes_alone() -> None:
    window = Window(unexpected, size=100)
    futures = [pending() for _ in range(3)]
    for future, size in zip(futures, (60, 40, 200), strict=True):
        task = asyncio.create_task(window.add([future], lambda: None, size))
        await asyncio.sleep(0.01)
        assert task.done() == (size < 200)
    futures[0].set_result(None)
    await asyncio.sleep(0.01)
    assert len(window) == 1
    futures[1].set_result(None)
    await asyncio.wait_for(task, 1)
    futures[2].set_result(None)
    await asyncio.wait_for(window.settle(), 1)
    await asyncio.wait_for(window.add([pending()], lambda: None, 100), 1)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_nothing_behind_a_failed_delivery_is_acked(cancelled: bool) -> None:
    failures, acked = list[BaseException](), list[int]()
    window = Window(failures.append)
    bad, good = pending(), pending()
    await add(window, acked, 1, bad)
    await add(window, acked, 2, good)
    good.set_result(None)
    if cancelled:
        bad.cancel()
    else:
        bad.set_exception(OSError("refused"))
    await asyncio.wait_for(window.settle(), 1)
    assert acked == []
    assert [type(error) for error in failures] == [asyncio.CancelledError if cancelled else OSError]


async def test_a_full_window_that_fails_never_admits_in_silence() -> None:
    failures, acked = list[BaseException](), list[int]()
    window = Window(failures.append, count=1)
    bad = pending()
    await add(window, acked, 1, bad)
    bad.set_exception(OSError("refused"))
    await asyncio.sleep(0.01)
    assert len(failures) == 1
    waiting = asyncio.create_task(add(window, acked, 2))
    await asyncio.sleep(0.01)
    assert acked == []
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
