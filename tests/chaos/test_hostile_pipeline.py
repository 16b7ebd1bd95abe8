"""A tenant that means harm, for an hour if need be, on the whole pipeline with a real model; another tenant speaks beside it.

The hostile one sends 4 record batches a second (every codec, broken ones, headers, bodies, sizes), a notification or two, a
file, and ten frames of a call in which one in four is wrong: enough to reach every reader, and too little to use up two
cores, since this is about what is sent and not how much of it. ``KAPTION_FUZZ_SECONDS`` says how long (default 60),
``KAPTION_FUZZ_SEED`` makes it another.

Latency is compared within the run, since a machine is not the same twice: the hostile tenant is silent again and again, and
what the other one's captions take then is the measure of what they take beside it.
"""

import asyncio
import itertools
import logging
import os
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import MessageSizeTooLargeError

from bench.words import percentile
from kaption.adapters.kafka.clients import security
from kaption.adapters.settings import Settings
from kaption.testing.brokers import ApacheNode
from kaption.testing.pipeline import Record, agent, is_ready, metrics, ready, worker
from kaption.testing.processes import Child
from kaption.testing.store import EmbeddedStore
from kaption.testing.topics import create_topics
from kaption_schemas.topics import EVENTS, MIB, OBJECTS, Topic, topic_name
from tests.integration.test_file_agent import file_agent
from tests.support.batches import put
from tests.support.fuzzing import Hostile, HostileFiles, broken_call
from tests.support.quiet_call import Once, QuietTenant, Times
from tests.support.uploads import client

SECONDS = float(os.environ.get("KAPTION_FUZZ_SECONDS", "60"))
SEED = int(os.environ.get("KAPTION_FUZZ_SEED", "1"))
HOSTILE, QUIET = "acme", "globex"
#: A part of the fuzz, the calm after it, and what lies between the two and counts as neither, seconds.
PART = min(100.0, SECONDS / 2)
CALM = max(12.0, PART / 5)
SETTLE = 4.0
#: What is sent a second.
BATCHES, NOTIFICATIONS, FILES, FRAMES = 4, 1, 1, 10
#: How much later than beside nobody captions and finals may come, by their p95; and by how many seconds that of few values differs anyway.
LATER, NOISE = 1.5, 60 / SECONDS

pytestmark = [pytest.mark.long, pytest.mark.apache, pytest.mark.timeout(1.5 * SECONDS + 300)]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """Milliseconds since 1970 in which the hostile tenant sent, or was silent."""

    begin: float
    end: float
    fuzz: bool

    def has(self, times: Times) -> bool:
        return self.begin <= times.published < self.end


class Attack:
    """The hostile tenant; what it sends follows from the seed, and ``sent`` counts it."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self.sent: Counter[str] = Counter()
        self._settings = settings
        self._records = Hostile(seed, broken=True)
        self._files = HostileFiles(seed, settings, HOSTILE)
        self._call = broken_call(random.Random(seed))
        self._store = client(settings)
        self._client = AIOKafkaClient(bootstrap_servers=settings.kafka)
        self._producer = AIOKafkaProducer(**security(settings), max_request_size=8 * MIB)
        self._turns = itertools.count()

    async def __aenter__(self) -> "Attack":
        await self._client.bootstrap()
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()
        await self._client.close()

    async def go(self, seconds: float) -> None:
        """Send for so long."""
        end = time.monotonic() + seconds
        steps = {self._batch: BATCHES, self._notify: NOTIFICATIONS, self._upload: FILES, self._frame: FRAMES}
        await asyncio.gather(*(_paced(step, rate, end) for step, rate in steps.items()))

    async def _batch(self) -> None:
        data = await asyncio.to_thread(self._records.batch)
        number = next(self._turns)
        topic = topic_name(OBJECTS if number % 4 == 3 else EVENTS, HOSTILE)
        if len(data) >= MIB:
            return
        error = await put(self._client, topic, data, number % self._settings.partitions)
        self.sent["batches" if error.errno == 0 else "batches that the broker refused"] += 1

    async def _notify(self, file: str | None = None) -> None:
        await self._send(OBJECTS, self._files.notification(file), "notifications")

    async def _upload(self) -> None:
        key, body = self._files.file()
        bucket = self._settings.media_bucket
        await asyncio.to_thread(self._store.put_object, bucket, key, BytesIO(body), len(body))
        self.sent["files"] += 1
        await self._notify(key)

    async def _frame(self) -> None:
        await self._send(EVENTS, next(self._call), "frames")

    async def _send(self, topic: Topic, record: Record, what: str) -> None:
        key, value, headers = record
        try:
            await self._producer.send_and_wait(topic_name(topic, HOSTILE), value, key=key, headers=headers)
        except MessageSizeTooLargeError:
            what += " that the broker refused"
        self.sent[what] += 1


async def _paced(step: Callable[[], Awaitable[None]], rate: float, end: float) -> None:
    while time.monotonic() < end:
        begin = time.monotonic()
        await step()
        await asyncio.sleep(begin + 1 / rate - time.monotonic())


@asynccontextmanager
async def whole_pipeline(settings: Settings, folder: Path) -> AsyncIterator[dict[str, Child]]:
    """Live agent, file agent and a worker with a real model, ready; nobody starts one again."""
    children = {
        "live": agent(settings, folder / "live.log"),
        "files": file_agent(settings, folder / "files.log"),
        "pool": worker(settings, folder / "pool.log"),
    }
    for child in children.values():
        child.spawn()
    try:
        for child in children.values():
            await ready(child)
        yield children
    finally:
        for child in children.values():
            child.stop()


async def in_turns(attack: Attack, quiet: QuietTenant) -> list[Part]:
    """Calm and fuzz in turns, with ``SECONDS`` of fuzz in all; begins and ends with calm."""
    parts: list[Part] = []

    async def part(fuzz: bool) -> None:
        begin = time.time() * 1000
        await (attack.go(PART) if fuzz else asyncio.sleep(CALM))
        parts.append(Part(begin, time.time() * 1000, fuzz))

    for number in range(round(SECONDS / PART)):
        await part(fuzz=False)
        await part(fuzz=True)
        log.warning("%.0f s of fuzz: %s, differing: %s", (number + 1) * PART, dict(attack.sent), quiet.differing())
        await asyncio.sleep(SETTLE)
    await part(fuzz=False)
    return parts


def lateness(what: Callable[[Once], Iterable[Times]], runs: Iterable[Once], parts: list[Part]) -> list[list[float]]:
    """Seconds, in calm and beside the fuzz."""
    every = [times for run in runs for times in what(run)]
    found = [
        [t.late for t in every if any(part.has(t) for part in parts if part.fuzz is fuzz)] for fuzz in (False, True)
    ]
    for name, late in zip(("calm", "fuzz"), found, strict=True):
        middle, high = percentile(late, 0.5), percentile(late, 0.95)
        log.warning("%s, %s: p50 %.2f p95 %.2f s of %d", what.__name__, name, middle, high, len(late))
    return found


def letters(children: Iterable[Child]) -> Counter[str]:
    """How many dead letters the processes wrote, by reason, as their metrics have it."""
    found: Counter[str] = Counter()
    for child in children:
        for reason, count in re.findall(r'^asr_dlq_total\{.*?reason="(\w+)".*?\} (\S+)$', metrics(child), re.MULTILINE):
            found[reason] += round(float(count))
    return found


def memory(child: Child) -> int:
    """MiB of a process's own."""
    return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{child.pid}/status").read_text())[0]) >> 10


async def test_nothing_a_tenant_sends_ends_a_process_or_changes_or_delays_what_another_says(
    apache_kafka: ApacheNode, store: EmbeddedStore, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings(apache_kafka, **store.fields, partitions=2, tenants=f"default,{HOSTILE},{QUIET}")
    await create_topics(settings)
    async with whole_pipeline(settings, tmp_path) as children:
        processes = children | {"kafka": apache_kafka.child, "store": store.child}
        pids = {name: child.pid for name, child in processes.items()}
        quiet = QuietTenant(settings, QUIET)
        listening = asyncio.create_task(quiet.listen())
        speaking = asyncio.create_task(quiet.speak())
        async with Attack(settings, SEED) as attack:
            alone = await asyncio.wait_for(quiet.first(), 60)
            before = {name: memory(child) for name, child in children.items()}
            parts = await in_turns(attack, quiet)
        quiet.stop()
        await speaking
        async with asyncio.timeout(30):
            for run in quiet.runs.values():
                await run.completed.wait()
        listening.cancel()
        after = {name: memory(child) for name, child in children.items()}
        refused = await asyncio.to_thread(letters, children.values())
        log.warning("sent %s; dead letters %s; MiB %s, then %s", dict(attack.sent), dict(refused), before, after)
        assert {name: child.pid for name, child in processes.items() if child.running} == pids
        assert all([await is_ready(child) for child in children.values()])
    assert alone.said()
    assert quiet.differing() == []
    assert quiet.letters == []
    assert refused["internal_error"] == 0
    for child in children.values():
        assert "stage_failed" not in child.log.read_text()
    assert min(attack.sent[what] for what in ("batches", "notifications", "files", "frames")) > 0
    for what in (Once.captions, Once.ends):
        calm, beside = (percentile(late, 0.95) for late in lateness(what, quiet.runs.values(), parts))
        assert beside <= max(LATER * calm, calm + NOISE), what.__name__
