"""One ``fused`` agent and three ``staged`` ones write the same records to the audio topic, and the same dead letters."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path

import pytest
from aiokafka import TopicPartition

from kaption.adapters.kafka.clients import Consumer, security
from kaption.adapters.settings import Settings
from kaption.service.services import Service, running
from kaption.testing.brokers import Broker, EmbeddedBroker
from kaption.testing.pipeline import Record, agent, frames, publish, ready
from kaption.testing.topics import create_topics
from kaption_schemas.headers import event_headers, text_headers
from kaption_schemas.topics import DLQ, LIVE, Type
from tests.support.pool import speech

pytestmark = pytest.mark.timeout(120)
RUN = f"01K{'0' * 22}5"


def records() -> list[Record]:
    pcm, rate = speech("harbour-2-slt", 3)
    """Among them two frames and two starts that are refused, each of which leaves a mark beside its dead letter."""
    whole = frames("call", RUN, pcm, rate)
    key, value, headers = whole[9]
    whole[9] = (key, (value or b"")[:-1], headers)
    muted = [*whole[4][2], ("ce_mute", b"6400-7000")]
    whole[4] = (whole[4][0], whole[4][1], muted)
    broken = [(n, b"audio/flac;rate=16000;channels=1" if n == "content-type" else v) for n, v in whole[12][2]]
    whole[12] = (key, b"no flac at all" * 100, broken)
    other = event_headers(Type.STARTED, id="s", source="/test", run=f"01K{'0' * 22}6")
    for bad in (b'{"options": {"redaction": ["PERSON"]}}', b'{"options": {"langauge": "en"}}'):
        whole.append((b"other", bad, other))
    return whole


def services(settings: Settings) -> list[Service]:
    """The live agents of a deployment."""
    return [one for one in running(settings) if one.arguments[:1] == ("live",)]


async def outcome(broker: Broker, settings: Settings, folder: Path) -> list[tuple[object, ...]]:
    await create_topics(settings)
    work = folder / f"{settings.stages}-work"
    work.mkdir()
    out: list[tuple[object, ...]] = []
    async with AsyncExitStack() as stack:
        children = [agent(settings, folder / f"{one.name}.log", *one.arguments) for one in services(settings)]
        for child in children:
            # A stage knows by itself that there are others.
            child.env["KAPTION_STAGES"] = "fused"
            child.folder = work
            stack.enter_context(child.during())
        consumer = await stack.enter_async_context(Consumer(**security(settings), auto_offset_reset="earliest"))
        for child in children:
            await ready(child)
        sent = records()
        await publish(settings, sent, per_second=200)
        names = (LIVE.name, DLQ.name)
        consumer.assign([TopicPartition(name, n) for name in names for n in range(settings.partitions)])
        while len(out) < len(sent) + 4:
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                for r in batch:
                    head = text_headers(r.headers)
                    kept = tuple((n, v) for n, v in head.items() if n not in ("ce_received", "errors.time"))
                    if refused := head.get("errors.time"):
                        # When it was refused, and not when it came.
                        assert abs(datetime.fromisoformat(refused).timestamp() * 1000 - r.timestamp) < 10_000
                    out.append((r.topic, r.key, r.value, kept))
    assert not [*work.iterdir()], "an agent leaves nothing where it works"
    return sorted(out, key=repr)


async def test_staged_equals_fused(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    results = []
    for stages in ("fused", "staged"):
        broker = EmbeddedBroker(tmp_path / stages)
        await broker.start()
        try:
            results.append(await outcome(broker, make_settings(broker, stages=stages), tmp_path))
        finally:
            broker.stop()
    fused, staged = results
    assert fused == staged
