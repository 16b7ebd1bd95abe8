"""The broker is away while calls go on: the worker is ready again without help, and nothing is lost (promise 1)."""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from itertools import repeat
from pathlib import Path

import pytest

from kaption.adapters.settings import Settings, child_environment
from kaption.domain.run.config import SessionConfig
from kaption.testing.brokers import ApacheNode
from kaption.testing.processes import Child
from kaption.testing.topics import create_topics
from kaption_schemas.headers import pcm_type, sequence, text_headers
from kaption_schemas.records import FinalTranscript
from kaption_schemas.topics import FINAL, LIVE, Type
from tests.support.away import AWAY, LONGEST
from tests.support.lanes import RUNS, TENTH, Publisher, completed, publisher, read
from tests.support.quick_worker import READY
from tests.support.runs import babble, play, records, session

pytestmark = [pytest.mark.timeout(280 + LONGEST), pytest.mark.apache, pytest.mark.long]

RATE = 16_000
SPEECH = babble([(0.5, False)] + [(2.0, True), (1.0, False), (7.3, True), (1.0, False)] * 2, RATE)
COUNT = len(SPEECH) // TENTH
#: A process is ready again within this after its broker is back, seconds.
READY_SECONDS = 30


async def speak(out: Publisher, run: str, first: int, last: int) -> None:
    """Publish frames ``first`` to ``last`` of a call, four times as fast as it was spoken."""
    for number in range(first, last):
        place = {"sequence": sequence(number), "firstsample": str(number * TENTH)}
        body = SPEECH[number * TENTH : (number + 1) * TENTH].tobytes()
        received = str(time.time_ns() // 1_000_000)
        await out.send(
            LIVE.name, f"s{run}", run, Type.CHUNK, body, content_type=pcm_type(RATE, 1), received=received, **place
        )
        await asyncio.sleep(0.025)


@pytest.mark.parametrize("seconds", AWAY)
async def test_a_broker_that_was_away_loses_nothing(
    seconds: int, apache_kafka: ApacheNode, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings(apache_kafka, redaction=(), idle_final_seconds=300)
    await create_topics(settings)
    worker = Child([sys.executable, "-m", "tests.support.quick_worker"], tmp_path / "log", child_environment(settings))
    worker.spawn()
    runs = RUNS[:4]
    try:
        async with asyncio.timeout(60):
            while READY not in worker.log.read_text():
                await asyncio.sleep(0.1)
        async with publisher(settings) as out:
            await asyncio.gather(*(speak(out, run, 0, COUNT // 2) for run in runs))
        apache_kafka.kill()
        await asyncio.sleep(seconds)
        await apache_kafka.start()
        back = time.monotonic()
        async with publisher(settings) as out:
            await asyncio.gather(*(speak(out, run, COUNT // 2, COUNT) for run in runs))
            for run in runs:
                await out.end(f"s{run}", run, COUNT - 1)
        found = await read(settings, FINAL.name, completed(*runs))
        took = time.monotonic() - back
    finally:
        worker.kill()
    alone = play(session(config=SessionConfig()), records(SPEECH, repeat(TENTH), RATE))
    expected = [(o.segment, o.start_sample, o.text) for o in alone if isinstance(o, FinalTranscript)]
    bodies = [json.loads(r.value) for r in found if text_headers(r.headers)["ce_type"] == Type.FINAL]
    for run in runs:
        assert [(b["segment"], b["start_sample"], b["text"]) for b in bodies if b["run"] == run] == expected
    assert took < READY_SECONDS + COUNT * 0.025 + 10, "and it speaks for some of that time itself"
