"""A pool worker is killed, paused or joined in mid-sentence: the finals are those of an undisturbed run, none twice (promise 2).

One that is killed has two batches in flight.
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka import TopicPartition
from aiokafka.structs import ConsumerRecord

from kaption.adapters.kafka.clients import Consumer, security
from kaption.adapters.settings import Settings
from kaption.testing.brokers import Broker
from kaption.testing.pipeline import ready, worker
from kaption.testing.topics import create_topics, wipe_topics
from kaption_schemas.headers import text_headers
from kaption_schemas.topics import FINAL, Type, topic_name
from tests.support.pool import Call, CallPublisher, gated_worker, held, speech

pytestmark = pytest.mark.timeout(280)

SECONDS = 14.0
TENANTS = ("default", "acme")
#: No segment ends, and no executor is replaced, because the machine is slow.
FIELDS: dict[str, Any] = {
    "tenants": TENANTS,
    "session_timeout_ms": 6000,
    "idle_final_seconds": 300,
    "executor_hang_seconds": 120,
}
Final = tuple[str, int, int, str]


def calls() -> list[Call]:
    """Four runs: two tenants with equal stream names, and a stereo call with its channels apart."""
    joe, rate = speech("harbour-1-joe", SECONDS)
    slt, other = speech("harbour-2-slt", SECONDS)
    rms, third = speech("workshop-1-rms", SECONDS)
    size = min(len(joe), len(slt))
    both = np.concatenate([joe[:size], slt[:size]], axis=1)
    runs = [f"01K{'0' * 22}{digit}" for digit in "1234"]
    return [
        Call("default", "desk", runs[0], joe, rate),
        Call("acme", "desk", runs[1], slt, other),
        Call("default", "shop", runs[2], rms, third),
        Call("default", "call", runs[3], both, rate, "split"),
    ]


async def committed(settings: Settings, runs: set[str], channels: int) -> list[ConsumerRecord]:
    """Everything on the final topics, when ``channels`` completions are there, and half a second later.

    Read from the start once all is written: a reader that is open while a worker dies in a transaction may leave out what comes
    after it, on the embedded broker (docs/hazards.md).
    """
    await completions(settings, channels, "read_uncommitted")
    records = await completions(settings, channels, "read_committed")
    assert {json.loads(r.value)["run"] for r in records} == runs
    return records


async def completions(settings: Settings, channels: int, isolation: str) -> list[ConsumerRecord]:
    """The records of the final topics until that many channels are completed, and those of half a second more."""
    consumer = Consumer(
        **security(settings), isolation_level=isolation, auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    records: list[ConsumerRecord] = []
    try:
        names = [topic_name(FINAL, tenant) for tenant in settings.tenants]
        consumer.assign([TopicPartition(name, n) for name in names for n in range(settings.partitions)])
        async with asyncio.timeout(150):
            while len(completed(records)) < channels:
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    records += batch
        for batch in (await consumer.getmany(timeout_ms=500)).values():
            records += batch
    finally:
        await consumer.stop()
    return records


def completed(records: list[ConsumerRecord]) -> set[str]:
    """The ids of the completions. What was aborted is written again with the same id."""
    heads = [text_headers(record.headers) for record in records]
    return {head["ce_id"] for head in heads if head["ce_type"] == str(Type.COMPLETED)}


def outcome(records: list[ConsumerRecord]) -> set[Final]:
    """Ids, ranges and texts; checks on the way that nothing is doubled, missing or out of order."""
    ids = [text_headers(r.headers)["ce_id"] for r in records]
    assert len(set(ids)) == len(ids), "a record was committed twice"
    out: set[Final] = set()
    ends: dict[tuple[str, str, int], tuple[int, int]] = {}
    for record in records:
        head, body = text_headers(record.headers), json.loads(record.value)
        if head["ce_type"] != str(Type.FINAL):
            continue
        place = (body["tenant"], body["run"], body["channel"])
        assert (body["segment"], body["start_sample"]) == ends.get(place, (0, 0)), "segments are contiguous and tile"
        ends[place] = (body["segment"] + 1, body["end_sample"])
        out.add((head["ce_id"], body["start_sample"], body["end_sample"], body["text"]))
    return out


async def run(settings: Settings, log: Path, fault: str | None) -> set[Final]:
    """Publish the calls through a worker that suffers ``fault`` half way, and read what was committed."""
    await create_topics(settings)
    killed = fault in ("kill", "takeover")
    first = gated_worker(settings, log / "first.log") if killed else worker(settings, log / "first.log")
    second = worker(settings, log / "second.log")
    played = calls()
    children = [first, second]
    try:
        first.spawn()
        await ready(first)
        async with CallPublisher(settings, played) as out:
            if killed:
                async with asyncio.TaskGroup() as group:
                    group.create_task(out.play(SECONDS))
                    await held(first)
                    if fault == "takeover":  # another member is there, with some of the lanes
                        second.spawn()
                        await ready(second)
                        await asyncio.sleep(2)
                    first.kill()
                    if fault == "kill":
                        second.spawn()
            else:
                await out.play(SECONDS * 0.55)
            if fault == "zombie":
                first.pause()
                second.spawn()
                await ready(second)
                await asyncio.sleep(settings.session_timeout_ms / 1000 + 2)
            await out.play(SECONDS)
            await out.end()
            if fault == "zombie":
                await asyncio.sleep(2)
                first.resume()
        return outcome(await committed(settings, {call.run for call in played}, channels=5))
    finally:
        for child in children:
            child.kill()


# The undisturbed run's finals, by broker: made once, since it takes as long as a fault.
_UNDISTURBED: dict[str, set[Final]] = {}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the choice of an encoder is kept: one for all runs, as on one machine, since their texts are compared."""
    return tmp_path_factory.mktemp("data")


@pytest.mark.parametrize("fault", ["kill", "takeover", "zombie"])
async def test_finals_survive(
    fault: str, every_kafka: Broker, make_settings: Callable[..., Settings], tmp_path: Path, encoder: Path
) -> None:
    kafka, fields = every_kafka, FIELDS | {"data": encoder}
    if kafka.name not in _UNDISTURBED:
        calm = make_settings(kafka, **fields)
        _UNDISTURBED[kafka.name] = await run(calm, tmp_path / "calm", None)
        await wipe_topics(kafka.bootstrap)
    assert sum(bool(text) for *_, text in _UNDISTURBED[kafka.name]) >= 5
    settings = make_settings(kafka, **fields)
    assert await run(settings, tmp_path / fault, fault) == _UNDISTURBED[kafka.name]
