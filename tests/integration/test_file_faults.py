"""The file agent among objects, stores and tenants that do it harm: it lives, others' files get through, and nothing is lost."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.structs import ConsumerRecord

from kaption.adapters.kafka import topics
from kaption.adapters.kafka.clients import Consumer, security
from kaption.testing.brokers import EmbeddedBroker
from kaption.testing.pipeline import is_ready, ready
from kaption_schemas.headers import text_headers
from kaption_schemas.reasons import Reason
from kaption_schemas.topics import BATCH, DLQ, OBJECTS, Type, topic_name
from tests.conftest import MakeSettings
from tests.integration.test_file_agent import Bench, bench, file_agent, of
from tests.support.away import AWAY, LONGEST
from tests.support.fake_store import FakeStore
from tests.support.media import encode, tone

WAV = encode(tone(1), 16_000)
ACME, GLOBEX = topic_name(DLQ, "acme"), topic_name(DLQ, "globex")


class Films:
    """Objects whose bytes come only once ``let_go`` was called: films, whatever the machine."""

    def __init__(self) -> None:
        self._free = threading.Event()
        self.begun: list[str] = []

    def __call__(self, method: str, path: str) -> int | None:
        if "film" in path and method == "GET":
            self.begun.append(path)
            self._free.wait(60)
        return None

    def let_go(self) -> None:
        self._free.set()


@pytest.fixture
def store() -> Iterator[FakeStore]:
    with FakeStore() as made:
        yield made


@pytest.fixture
async def files(
    fresh_kafka: EmbeddedBroker, store: FakeStore, make_settings: MakeSettings, tmp_path: Path
) -> AsyncIterator[Bench]:
    fields = {"tenants": ("default", "acme", "globex"), "object_tries": 3, "session_timeout_ms": 6000}
    settings = make_settings(fresh_kafka, **store.fields, **fields)
    await topics.create(settings)
    async with bench(settings, tmp_path) as made:
        yield made


async def publish(files: Bench, store: FakeStore, tenant: str, name: str, **more: Any) -> str:
    """One object of its own stream; returns its run."""
    key = f"{tenant}/{name}"
    store.objects[f"/media/{key}"] = WAV
    return await files.send(files.object(key) | more, stream=f"s-{name}", tenant=tenant)


def ended(records: list[ConsumerRecord], runs: list[str]) -> bool:
    return all(of(records, run, Type.ENDED) for run in runs)


def reasons(records: list[ConsumerRecord], topic: str) -> list[str]:
    return [text_headers(record.headers)["errors.reason"] for record in records if record.topic == topic]


async def committed(files: Bench, tenant: str) -> int:
    """Records of a tenant that the group has acknowledged."""
    settings = files.settings
    group = f"{settings.group}.files"
    async with Consumer(**security(settings), group_id=group, enable_auto_commit=False) as consumer:
        places = [TopicPartition(topic_name(OBJECTS, tenant), n) for n in range(settings.partitions)]
        return sum([await consumer.committed(place) or 0 for place in places])


async def all_committed(files: Bench, tenant: str, count: int) -> None:
    async with asyncio.timeout(20):
        while await committed(files, tenant) != count:
            await asyncio.sleep(0.2)


async def test_no_record_ends_the_agent(files: Bench, store: FakeStore) -> None:
    """Each of these did, again and again, for all tenants."""
    pid = files.agent.pid
    for field in ("sequencer", "eTag", "versionId", "key"):
        what = {"key": "acme/x.wav", field: "acme/\ud800"}
        entry = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "media"}, "object": what}}
        await files.raw(json.dumps({"Records": [entry]}).encode(), b"k", tenant="acme")
    store.objects["/media/acme/ok.wav"] = WAV
    for stream in (".", ".."):
        await files.send(files.object("acme/ok.wav"), stream=stream, tenant="acme")
    for status in (409, 410, 414, 451):
        name = f"{status}.wav"
        await publish(files, store, "acme", name)
    store.mood = lambda _method, path: int(path[-7:-4]) if path.startswith("/media/acme/4") else None
    run = await publish(files, store, "globex", "a.wav")
    await files.until(lambda found: ended(found, [run]), 20)
    await files.until(lambda found: len(reasons(found, ACME)) == 10)
    assert sorted(reasons(files.records, ACME)) == (
        [Reason.BAD_KEY] * 2 + [Reason.INVALID_BODY] * 4 + [Reason.OBJECT_UNREADABLE] * 4
    )
    letter = await files.refusal("451.wav", ACME)
    head = text_headers(letter.headers)
    assert head["errors.attempt"] == "3"
    assert "answered 451" in head["errors.message"]
    assert "127.0.0.1" not in head["errors.message"]
    await all_committed(files, "acme", 10)
    assert files.agent.pid == pid


async def test_a_quiet_tenants_file_does_not_wait_for_anothers_films(files: Bench, store: FakeStore) -> None:
    store.mood = films = Films()
    slow = [await publish(files, store, "acme", f"film-{number}.wav") for number in range(5)]
    many = [await publish(files, store, "acme", f"{number}.wav") for number in range(60)]
    async with asyncio.timeout(30):
        while len(films.begun) < 2:
            await asyncio.sleep(0.05)
    for name in ("a.wav", "b.wav"):
        run = await publish(files, store, "globex", name)
        await files.until(lambda found, run=run: ended(found, [run]), 15)  # type: ignore[misc]
    assert not ended(files.records, slow[:1])
    assert len(films.begun) == 2
    assert await committed(files, "globex") <= 2
    films.let_go()
    await files.until(lambda found: ended(found, [*slow, *many]))
    await all_committed(files, "acme", 65)
    starts = [
        text_headers(record.headers)["ce_run"]
        for run in (*slow, *many)
        for record in of(files.records, run, Type.STARTED)
    ]
    assert len(starts) == len(set(starts)) == 65, "none twice"


async def test_runs_of_one_stream_begin_in_their_order(files: Bench, store: FakeStore) -> None:
    store.mood = films = Films()
    for name in ("film.wav", "clip.wav"):
        store.objects[f"/media/acme/{name}"] = WAV
    first = await files.send(files.object("acme/film.wav"), stream="one", tenant="acme")
    second = await files.send(files.object("acme/clip.wav"), stream="one", tenant="acme")
    other = await publish(files, store, "acme", "other.wav")
    await files.until(lambda found: ended(found, [other]))
    films.let_go()
    await files.until(lambda found: ended(found, [first, second]))
    mine = [text_headers(r.headers)["ce_run"] for r in files.records if r.topic == BATCH.name and r.key == b"acme/one"]
    assert mine == [first] * 3 + [second] * 3


async def test_a_rebalance_loses_nothing_and_begins_no_film_again(
    files: Bench, store: FakeStore, tmp_path: Path
) -> None:
    store.mood = films = Films()
    runs = [await publish(files, store, "acme", f"film-{number}.wav") for number in range(12)]
    async with asyncio.timeout(30):
        while len(films.begun) < 2:
            await asyncio.sleep(0.05)
    second = file_agent(files.settings, tmp_path / "second.log")
    second.spawn()
    try:
        await ready(second)
        async with asyncio.timeout(30):
            while len(films.begun) < 4:
                await asyncio.sleep(0.05)
        films.let_go()
        await files.until(lambda found: ended(found, runs))
        await all_committed(files, "acme", 12)
        begun = {path: films.begun.count(path) for path in films.begun}
        assert sum(times > 1 for times in begun.values()) <= 2, "what was in work where it no longer is"
    finally:
        assert second.stop() == 0


@pytest.mark.timeout(180 + LONGEST)
@pytest.mark.parametrize(
    ("how", "seconds"),
    [
        ("refuses", 4),
        *(pytest.param(how, seconds, marks=pytest.mark.long) for seconds in AWAY for how in ("refuses", "503")),
    ],
)
async def test_a_store_that_is_away_leaves_nothing_dead(files: Bench, store: FakeStore, how: str, seconds: int) -> None:
    pid = files.agent.pid
    before = await publish(files, store, "acme", "before.wav")
    await files.until(lambda found: ended(found, [before]))
    if how == "503":
        store.mood = lambda _method, _path: 503
    else:
        store.stop()
    during = [await publish(files, store, "acme", f"{number}.wav") for number in range(3)]
    async with asyncio.timeout(20):
        while await is_ready(files.agent):
            await asyncio.sleep(0.1)
    await asyncio.sleep(seconds)
    if how == "503":
        store.mood = lambda _method, _path: None
    else:
        store.start()
    await ready(files.agent, 30)
    await files.until(lambda found: ended(found, during), 30)
    assert reasons(files.records, ACME) == []
    assert files.agent.pid == pid
    assert ("answered 503" if how == "503" else "no object store answers") in files.agent.log.read_text()


async def test_an_agent_starts_and_ends_while_the_store_is_away(
    fresh_kafka: EmbeddedBroker, store: FakeStore, make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings(fresh_kafka, **store.fields)
    await topics.create(settings)
    store.stop()
    agent = file_agent(settings, tmp_path / "files.log")
    agent.spawn()
    try:
        async with asyncio.timeout(30):
            while "decoding_failed" not in agent.output():
                await asyncio.sleep(0.1)
        assert not await is_ready(agent)
        assert agent.stop(10) == 0
        agent.spawn()
        store.start()
        await ready(agent, 40)
        assert agent.stop(10) == 0
    finally:
        agent.kill()


async def test_an_agent_ends_in_time_while_the_store_does_not_answer(files: Bench, store: FakeStore) -> None:
    """Its threads wait for answers far longer."""
    store.mood = films = Films()
    for number in range(2):
        await publish(files, store, "acme", f"film-{number}.wav")
    async with asyncio.timeout(30):
        while len(films.begun) < 2:
            await asyncio.sleep(0.05)
    assert files.agent.stop(11) in (0, 1)
    films.let_go()
    files.agent.spawn()
    await ready(files.agent)
