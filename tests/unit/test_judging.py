"""A stage that fails on a record, or does not end, makes a dead letter of it."""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from kaption.domain.intake.refusal import Refusal
from kaption_schemas.codec import Event, Origin
from kaption_schemas.codec.letters import UNDECODABLE
from kaption_schemas.errors import StuckError
from kaption_schemas.headers import event_headers, pcm_type, sequence
from kaption_schemas.reasons import Reason
from kaption_schemas.records import Gap
from kaption_schemas.topics import Type
from kaption_streams.judging import MOST_HUNG, judge

RUN = "01HZZZZZZZZZZZZZZZZZZZZZZZ"
PLACE = {"sequence": sequence(3), "firstsample": "4800"}
Work = Callable[[Origin], list[Event] | Refusal]


def record(kind: Type, content_type: str) -> Origin:
    extra = PLACE if kind is Type.FRAME else {}
    head = event_headers(kind, id="1", source="/t", run=RUN, content_type=content_type, extra=extra)
    return Origin("acme", "acme.media.events.v1", 0, 7, 1, b"call", b"x", tuple(head))


RAW = record(Type.FRAME, pcm_type(16_000, 1))
FLAC = record(Type.FRAME, "audio/flac")
STARTED = record(Type.STARTED, "application/json")


def failing(error: Exception, times: int = 9) -> tuple[Work, list[Origin]]:
    calls: list[Origin] = []

    def work(origin: Origin) -> list[Event] | Refusal:
        calls.append(origin)
        if len(calls) <= times:
            raise error
        return []

    return work, calls


@pytest.mark.parametrize("origin", [RAW, FLAC, STARTED])
@pytest.mark.parametrize("error", [KeyError("a"), UnicodeEncodeError("utf-8", "\ud800", 0, 1, "no"), RecursionError()])
async def test_what_fails_each_time_is_refused(origin: Origin, error: Exception) -> None:
    work, calls = failing(error)
    result = await judge(origin, "fused", work)
    assert isinstance(result, Refusal)
    assert (result.reason, result.stage, len(calls)) == (Reason.INTERNAL_ERROR, "fused", 2)
    assert result.mark is not None
    if origin is not STARTED:
        gap = result.mark.body
        assert isinstance(gap, Gap)
        assert (gap.first_sequence, gap.reason) == (3, Reason.INTERNAL_ERROR)
    else:
        assert result.mark.kind is Type.REFUSED


async def test_what_fails_once_is_tried_again() -> None:
    work, calls = failing(KeyError("a"), times=1)
    assert (await judge(RAW, "fused", work), len(calls)) == ([], 2)


async def test_a_fault_of_the_machine_is_not_the_records() -> None:
    for error in (OSError(24, "too many open files"), MemoryError()):
        with pytest.raises(type(error)):
            await judge(FLAC, "fused", failing(error)[0])


async def test_what_takes_too_long_is_refused_and_keeps_no_loop() -> None:
    over, ticks = threading.Event(), 0

    def work(_: Origin) -> list[Event]:
        over.wait(20)
        return []

    begin = time.monotonic()
    judged = asyncio.create_task(judge(STARTED, "fused", work, seconds=0.5))
    while not judged.done():
        await asyncio.sleep(0.01)
        ticks += 1
    over.set()
    result = judged.result()
    assert isinstance(result, Refusal)
    assert result.reason is Reason.TOO_COSTLY
    assert ticks > 10
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("content_type", [pcm_type(16_000, 1), "application/json"])
async def test_no_text_is_judged_on_the_event_loop(content_type: str) -> None:
    """Whatever its publisher says that it is: only samples are."""
    threads: list[threading.Thread] = []

    def work(_: Origin) -> list[Event]:
        threads.append(threading.current_thread())
        return []

    for origin in (record(Type.STARTED, content_type), RAW):
        await judge(origin, "fused", work)
    assert [thread is threading.main_thread() for thread in threads] == [False, True]


async def test_a_process_ends_when_too_many_stages_hang() -> None:
    over = threading.Event()

    def work(_: Origin) -> list[Event]:
        over.wait(20)
        return []

    try:
        for _ in range(MOST_HUNG - 1):
            assert isinstance(await judge(STARTED, "fused", work, seconds=0.1), Refusal)
        with pytest.raises(StuckError):
            await judge(STARTED, "fused", work, seconds=0.1)
        assert await judge(STARTED, "fused", failing(KeyError(), 0)[0], seconds=5) == []
    finally:
        over.set()


async def test_a_batch_that_could_not_be_read_is_refused_unseen() -> None:
    work, calls = failing(KeyError("a"))
    result = await judge(replace(RAW, headers=((UNDECODABLE, b"3"),)), "fused", work)
    assert isinstance(result, Refusal)
    assert (result.reason, result.mark, calls) == (Reason.UNDECODABLE_BATCH, None, [])
