"""A worker as a process that is stopped, and that is to end: nothing is cut, closed or waited for by mistake (promise 4)."""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from itertools import repeat
from pathlib import Path

from kaption.adapters.processes.tcp_ports import free_port
from kaption.adapters.settings import Settings, child_environment
from kaption.domain.run.config import SessionConfig
from kaption.testing.brokers import Broker, EmbeddedBroker
from kaption.testing.processes import Child
from kaption.testing.topics import create_topics
from kaption_schemas.headers import pcm_type, sequence, text_headers
from kaption_schemas.records import FinalTranscript
from kaption_schemas.topics import DLQ, FINAL, LIVE, Type
from tests.support.lanes import RUNS, TENTH, completed, publisher, read
from tests.support.quick_worker import READY
from tests.support.runs import babble, play, records, session

RATE = 16_000
SPEECH = babble([(0.5, False), (2.0, True), (1.0, False), (7.3, True), (1.0, False)], RATE)


async def said(child: Child, what: str, seconds: float = 30) -> None:
    """Wait until a child's log has ``what``."""
    async with asyncio.timeout(seconds):
        while what not in child.log.read_text(errors="replace"):
            assert child.running, child.output()
            await asyncio.sleep(0.05)


async def test_the_only_worker_is_stopped_for_longer_than_the_idle_limits(
    kafka: Broker, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings(
        kafka, partitions=1, idle_final_seconds=2, idle_close_seconds=3, redaction=(), session_timeout_ms=10_000
    )
    await create_topics(settings)
    worker = Child([sys.executable, "-m", "tests.support.quick_worker"], tmp_path / "log", child_environment(settings))
    worker.spawn()
    try:
        await said(worker, READY)
        async with publisher(settings) as out:
            count = len(SPEECH) // TENTH
            for number in range(count):
                place = {"sequence": sequence(number), "firstsample": str(number * TENTH)}
                body = SPEECH[number * TENTH : (number + 1) * TENTH].tobytes()
                now = str(time.time_ns() // 1_000_000)
                await out.send(
                    LIVE.name, "call", RUNS[0], Type.CHUNK, body, content_type=pcm_type(RATE, 1), received=now, **place
                )
                await asyncio.sleep(0.04)
                if number == count // 2:
                    worker.pause()
            await out.end("call", RUNS[0], count - 1)
            await asyncio.sleep(2.5)  # by the last records, too, it has been stopped for longer than the limits
            worker.resume()
            found = await read(settings, FINAL.name, completed(RUNS[0]))
            # A dead letter of another's tells that there was none before it.
            await out.producer.send_and_wait(LIVE.name, b"x")
            letters = await read(settings, DLQ.name, bool)
    finally:
        worker.kill()
    assert [text_headers(letter.headers)["errors.reason"] for letter in letters] == ["bad_key"]
    bodies = [(text_headers(r.headers)["ce_type"], json.loads(r.value)) for r in found]
    assert [body["reason"] for kind, body in bodies if kind == Type.COMPLETED] == ["ended"]
    segments = [(b["start_sample"], b["end_sample"], b["text"]) for kind, b in bodies if kind == Type.FINAL]
    alone = play(session(config=SessionConfig()), records(SPEECH, repeat(TENTH), RATE))
    assert segments == [(o.start_sample, o.end_sample, o.text) for o in alone if isinstance(o, FinalTranscript)]


async def test_a_worker_ends_within_ten_seconds_whatever_its_broker_does(
    fresh_kafka: EmbeddedBroker, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings(fresh_kafka, partitions=2)
    await create_topics(settings)
    env = child_environment(settings) | {"KAPTION_HTTP_PORT": str(free_port())}
    worker = Child([sys.executable, "-m", "tests.support.serving_worker"], tmp_path / "log", env)
    worker.spawn()
    try:
        await said(worker, READY, 60)
        async with publisher(settings) as out:
            for number in range(12):
                await out.chunk("s", RUNS[0], number, 1)
        fresh_kafka.child.pause()
        began = time.monotonic()
        await asyncio.to_thread(worker.stop, 30)
        assert time.monotonic() - began < 10
    finally:
        fresh_kafka.child.resume()
        worker.kill()
