"""Broker and agents are killed in mid-sentence under four streams and a file; `kaption up` starts again what it should.

The finals are those of an undisturbed run, contiguous, and a reader of committed records sees nothing twice.
"""

import asyncio
import io
import os
import signal
import wave
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from ulid import ULID

from kaption.adapters.settings import Settings
from kaption.adapters.store.s3 import ObjectStore
from kaption.client.publisher import Publisher
from kaption.testing.brokers import Broker
from kaption.testing.pipeline import bodies, committed, frames, publish, reasons
from kaption.testing.up import Up, group_of, running_up
from kaption_schemas.records import RunOptions
from kaption_schemas.topics import Type
from tests.support.pool import speech

pytestmark = pytest.mark.timeout(290)

SECONDS = 12.0
STREAMS = {"joe": "harbour-1-joe", "slt": "harbour-2-slt", "rms": "workshop-1-rms", "lee": "workshop-2-slt"}
Final = tuple[int, int, int, str]


def wav(name: str) -> bytes:
    """The first seconds of shipped speech as a WAV."""
    pcm, rate = speech(name, SECONDS)
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setparams((1, 2, rate, 0, "NONE", ""))
        sound.writeframes(pcm.tobytes())
    return out.getvalue()


async def play(settings: Settings, disturb: Callable[[], Awaitable[None]], prefix: str) -> None:
    """Four live streams at twice their pace, and a file from the middle on; ``disturb`` in mid-sentence."""
    runs = [frames(f"{prefix}-{name}", str(ULID()), *speech(piece, SECONDS)) for name, piece in STREAMS.items()]
    playing = [asyncio.create_task(publish(settings, run, per_second=20)) for run in runs]
    await asyncio.sleep(2)
    async with Publisher(settings) as publisher:
        await publisher.object(
            settings.media_bucket, "default/film.wav", stream=f"{prefix}-film", options=RunOptions(redaction=())
        )
    await asyncio.sleep(0.3)
    await disturb()
    await asyncio.gather(*playing)


def finals(records: list[Any], prefix: str) -> dict[str, list[Final]]:
    """Each stream's finals, seen to be contiguous and to tile the run."""
    out: dict[str, list[Final]] = {}
    for body in bodies(records, Type.FINAL):
        stream, _, name = body["stream"].partition("-")
        if stream == prefix:
            out.setdefault(name, []).append((body["segment"], body["start_sample"], body["end_sample"], body["text"]))
    for name, run in out.items():
        assert [f[0] for f in run] == list(range(len(run))), (name, run)
        assert [f[1] for f in run] == [0, *(f[2] for f in run[:-1])]
    return out


def pid_of(up: Up, process: str) -> int:
    """The process that `kaption up` started with these arguments."""
    return next(pid for pid, arguments in group_of(up.child.pid).items() if arguments.endswith(process))


async def check(
    broker: Broker, tmp_path: Path, disturb: Callable[[Up], Awaitable[None]], stages: str = "fused"
) -> None:
    """Play twice, the second time disturbed, and compare."""
    env = {
        "KAPTION_REDACTION": "", "KAPTION_PARTITIONS": "4", "KAPTION_REPLICATION": str(broker.replication),
        "KAPTION_SESSION_TIMEOUT_MS": "6000", "OMP_NUM_THREADS": "1",
        # An agent that was killed is replaced after about as long as ends the open segments of who speaks then (ADR 27).
        "KAPTION_IDLE_FINAL_SECONDS": "60",
    }  # fmt: skip
    async with running_up(tmp_path, ("--kafka", broker.bootstrap, "--stages", stages), env) as up:
        settings = up.settings(partitions=4)
        store = ObjectStore(settings)
        store.put(settings.media_bucket, "default/film.wav", io.BytesIO(wav("harbour-3-joe")))
        store.close()

        async def nothing() -> None:
            pass

        await play(settings, nothing, "calm")
        await committed(settings, 5)
        await play(settings, lambda: disturb(up), "storm")
        records = await committed(settings, 10)
    places = [(r.topic, r.partition, r.offset) for r in records]
    assert len(set(places)) == len(places), "the reader itself read something twice"
    assert reasons(records) == []
    calm, storm = finals(records, "calm"), finals(records, "storm")
    assert set(calm) == {*STREAMS, "film"}
    assert storm == calm


@pytest.mark.parametrize("process", ["live", "files"])
async def test_an_agent(every_kafka: Broker, tmp_path: Path, process: str) -> None:
    async def kill(up: Up) -> None:
        os.kill(pid_of(up, f"kaption_streams {process}"), signal.SIGKILL)

    await check(every_kafka, tmp_path, kill)


@pytest.mark.parametrize(
    "stage", ["redact", *(pytest.param(name, marks=pytest.mark.long) for name in ("validate", "chunk"))]
)
async def test_a_stage(kafka: Broker, tmp_path: Path, stage: str) -> None:
    """Each is a process of its own; the others go on without it."""
    others = {"validate", "redact", "chunk"} - {stage}

    async def kill(up: Up) -> None:
        before = {name: pid_of(up, f"kaption_streams live --stage {name}") for name in (stage, *others)}
        assert len(set(before.values())) == 3
        os.kill(before[stage], signal.SIGKILL)
        async with asyncio.timeout(60):
            while (after := processes(up)).get(stage) in (None, before[stage]):
                await asyncio.sleep(0.1)
        assert {name: after[name] for name in others} == {name: before[name] for name in others}

    await check(kafka, tmp_path, kill, "staged")


def processes(up: Up) -> dict[str, int]:
    """The stages that run, by their name."""
    running = {
        arguments.rpartition(" ")[2]: pid for pid, arguments in group_of(up.child.pid).items() if "--stage" in arguments
    }
    return {name: pid for name, pid in running.items() if Path(f"/proc/{pid}").exists()}


@pytest.mark.apache
async def test_the_broker(durable_kafka: Broker, tmp_path: Path) -> None:
    """One node of it; the embedded broker cannot survive this."""

    async def kill(_: Up) -> None:
        durable_kafka.kill()
        await asyncio.sleep(1)
        await durable_kafka.start()

    await check(durable_kafka, tmp_path, kill)
