"""``kaption publish`` and ``kaption follow`` as processes against a broker."""

import asyncio
import json
import os
import signal
import sys

import pytest
from aiokafka import AIOKafkaProducer

from kaption import Transcripts
from kaption.adapters.settings import Settings
from kaption_schemas.topics import EVENTS
from tests.conftest import MakeSettings
from tests.integration.test_client import on_the_wire
from tests.support.brokers import EmbeddedBroker
from tests.support.topics import create_topics
from tests.support.transcripts import completed, final, partial, put


@pytest.fixture
async def settings(fresh_kafka: EmbeddedBroker, make_settings: MakeSettings) -> Settings:
    made = make_settings(fresh_kafka)
    await create_topics(made)
    return made


async def start(settings: Settings, *argv: str, stdin: int | None = None) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kaption.cli.main", *argv, "--kafka", settings.kafka,
        stdin=stdin, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if not name.startswith("KAPTION_")},
    )  # fmt: skip


async def finish(child: asyncio.subprocess.Process, data: bytes | None = None) -> str:
    async with asyncio.timeout(30):
        out, err = await child.communicate(data)
    assert child.returncode == 0, err.decode()
    return out.decode()


async def test_standard_input_is_a_live_stream(settings: Settings) -> None:
    audio = bytes(range(250)) * 80  # 625 ms
    child = await start(settings, "publish", "-", "--stream", "mic", "--json", stdin=asyncio.subprocess.PIPE)
    told = json.loads(await finish(child, audio))
    assert (told["stream"], told["seconds"]) == ("mic", 0.625)
    records = await on_the_wire(settings, EVENTS.name)
    assert b"".join(record.value for record in records[1:-1]) == audio


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("--txt", "One.\nTwo.\n"),
        ("--srt", "1\n00:00:00,000 --> 00:00:03,500\nOne.\n\n2\n00:00:04,000 --> 00:00:07,500\nTwo.\n\n"),
        ("--finals", "call  0:00.0  One.\ncall  0:04.0  Two.\n"),
    ],
)
async def test_what_was_said_can_be_read_again_in_each_form(settings: Settings, form: str, expected: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as pool:
        for record in (
            partial(0, 1),
            final(0, "One."),
            final(0, "Else.", stream="other"),
            final(1, "Two."),
            completed(),
        ):
            await put(pool, record)
    child = await start(settings, "follow", "call", "--from-beginning", "--until-completed", form)
    assert await finish(child) == expected


async def test_a_follower_sees_what_comes_and_ends_at_a_signal_with_0(settings: Settings) -> None:
    child = await start(settings, "follow", "--json")
    assert child.stdout is not None
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as pool, asyncio.timeout(30):
        line, revision = asyncio.create_task(child.stdout.readline()), 0
        while not line.done():  # until it has found its place at the end of the log
            revision += 1
            await put(pool, partial(0, revision))
            await asyncio.wait((line,), timeout=0.2)
    assert json.loads(await line)["type"] == "partial"
    child.send_signal(signal.SIGINT)
    await finish(child)


@pytest.mark.parametrize("argv", [("follow",), ("publish", "-", "--stream", "a")])
async def test_a_broker_without_topics_is_said_so(fresh_kafka: EmbeddedBroker, argv: tuple[str, ...]) -> None:
    child = await start(Settings(kafka=fresh_kafka.bootstrap), *argv, stdin=asyncio.subprocess.DEVNULL)
    async with asyncio.timeout(30):
        _, err = await child.communicate()
    assert child.returncode == 78, err
    assert b"kaption topics create" in err


async def test_transcripts_of_a_tenant_without_topics(fresh_kafka: EmbeddedBroker) -> None:
    with pytest.raises(LookupError, match="kaption topics create"):
        await Transcripts(tenant="ghost", settings=Settings(kafka=fresh_kafka.bootstrap)).__aenter__()
