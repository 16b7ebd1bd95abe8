"""Sends random records to a running agent for minutes: they do not affect another tenant's run.

``KAPTION_FUZZ_SECONDS`` makes it longer (default 60), ``KAPTION_FUZZ_SEED`` makes it another.
"""

import asyncio
import json
import logging
import os
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from kaption.adapters.kafka.clients import Consumer, security
from kaption.adapters.settings import Settings
from kaption.testing.brokers import Broker
from kaption.testing.pipeline import agent, frames, ready
from kaption.testing.topics import create_topics
from kaption_schemas.headers import Headers, event_headers, pcm_type, sequence
from kaption_schemas.topics import EVENTS, LIVE, MIB, Type, topic_name
from tests.support.batches import CODECS, batch, signed, with_codec, write
from tests.support.pool import speech

SECONDS = float(os.environ.get("KAPTION_FUZZ_SECONDS", "60"))
SEED = int(os.environ.get("KAPTION_FUZZ_SEED", "1"))
HOSTILE, QUIET = "acme", "globex"
RUN = f"01K{'0' * 22}9"

pytestmark = [pytest.mark.long, pytest.mark.timeout(SECONDS + 240)]

TEXTS = ("a@b.c", "4111 1111 1111 1111", "1 ", "\ud800", "[", '"', "\\", "\u0000", "\u202e", "٤", "+1 202 555 0123 ")
FORMATS = (
    "audio/pcm;rate=16000;channels=1;encoding=s16le", "audio/flac", "audio/ogg;rate=48000;channels=2", "audio/wav",
    "audio/pcm;rate=999999;channels=0;encoding=x", "application/json", ";;;=\"", "audio/pcm;rate*0*=1;rate=8000",
)  # fmt: skip


class Hostile:
    """Draws batches, one like the other or none at all."""

    def __init__(self, seed: int, *, broken: bool) -> None:
        """``broken``: also batches that are none, which the embedded broker itself does not survive."""
        self.draw = random.Random(seed)
        self.broken = broken

    def text(self, most: int) -> str:
        draw = self.draw
        return draw.choice(TEXTS) * draw.randint(0, draw.choice((3, 100, most)))

    def json(self, depth: int = 0) -> object:
        draw = self.draw
        match draw.randrange(7 if depth < 5 else 4):
            case 0:
                return self.text(3000)
            case 1:
                return draw.choice((None, True, -1, 10**400, 1.5, float("nan")))
            case 2 | 3:
                return draw.choice(("CREDIT_CARD", "en", "split", 16_000, RUN))
            case 4:
                return [self.json(depth + 1) for _ in range(draw.randint(0, 30))]
            case _:
                names = ("options", "metadata", "vocabulary", "redaction", "format", "rate", "language", self.text(40))
                return {draw.choice(names): self.json(depth + 1) for _ in range(draw.randint(0, 12))}

    def body(self) -> bytes | None:
        draw = self.draw
        match draw.randrange(6):
            case 0:
                return draw.choice((None, b"", b"{}", b'{"last_sequence":0}'))
            case 1:
                return draw.randbytes(draw.choice((1, 320, 3200, 60_000)))
            case 2:
                return bytes(draw.choice((640, 3200, 600_000, 3 * MIB)))
            case 3:
                magic = draw.choice((b"fLaC", b"OggS", b"RIFF\xff\xff\xff\xffWAVEfmt ", b"FORM"))
                return magic + draw.randbytes(draw.randint(0, 4000))
            case _:
                return json.dumps(self.json()).encode("utf-8", "surrogatepass")[: 256 << 10]

    def headers(self) -> Headers:
        draw = self.draw
        extra = {"sequence": sequence(draw.randint(0, 50)), "firstsample": str(draw.choice((0, 1600, 10**12, -1)))}
        head = event_headers(
            draw.choice([*Type]), id="1", source="/t", run=draw.choice((RUN, "x")), extra=extra,
            content_type=draw.choice(FORMATS),
        )  # fmt: skip
        for _ in range(draw.choice((0, 0, 1, 3))):
            name, _ = draw.choice(head)
            head.append((draw.choice((name, "baggage", "x" * 1000)), draw.randbytes(draw.choice((0, 10, 20_000)))))
        if draw.random() < 0.3:
            head.remove(draw.choice(head))
        return head

    def batch(self) -> bytes:
        """One that a broker may refuse."""
        draw = self.draw
        values = [self.body() for _ in range(draw.choice((1, 1, 1, 5, 50)))]
        key = draw.choice((b"call", b"", b"..", draw.randbytes(5), b"x" * 200_000))
        data = batch(values, draw.choice([*CODECS.values()]), [*self.headers()], key)
        match draw.randrange(8) if self.broken else 8:
            case 0:
                data = with_codec(data, draw.randrange(8))
            case 1:
                for _ in range(draw.randint(1, 5)):
                    data[draw.randrange(21, len(data))] = draw.randrange(256)
                data = signed(data) if draw.random() < 0.8 else data
            case 2:
                del data[draw.randrange(61, len(data) + 1) :]
                data = signed(data)
            case 3:
                struct.pack_into(">i", data, 57, draw.choice((0, -1, 2**31 - 1)))
                data = signed(data)
            case _:
                pass
        return bytes(data)


async def test_no_record_ends_an_agent_or_keeps_another_tenant_waiting(
    kafka: Broker, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings(kafka, partitions=2, tenants=f"default,{HOSTILE},{QUIET}")
    await create_topics(settings)
    child = agent(settings, tmp_path / "agent.log")
    child.spawn()
    hostile, took = Hostile(SEED, broken=kafka.durable), list[float]()
    taken = 0
    end = time.monotonic() + SECONDS
    pcm, rate = speech("harbour-2-slt", 1)
    (key, value, _), *_ = frames("call", RUN, pcm, rate)
    try:
        await ready(child)
        pid = child.pid
        consumer = Consumer(**security(settings), auto_offset_reset="latest")
        async with consumer, AIOKafkaProducer(**security(settings)) as producer:
            places = [TopicPartition(LIVE.name, n) for n in range(settings.partitions)]
            consumer.assign(places)
            await asyncio.gather(*map(consumer.position, places))
            number = 0
            while time.monotonic() < end:
                for _ in range(3):
                    data = hostile.batch()
                    if len(data) < MIB:
                        error = await write(settings.kafka, topic_name(EVENTS, HOSTILE), data, number % 2)
                        taken += error.errno == 0
                place = {"sequence": sequence(number), "firstsample": str(number * 1600)}
                head = event_headers(
                    Type.FRAME, id=str(number), source="/t", run=RUN, extra=place, content_type=pcm_type(rate, 1)
                )
                begin = time.monotonic()
                await producer.send_and_wait(topic_name(EVENTS, QUIET), value, key=key, headers=head)
                async with asyncio.timeout(30):
                    while not any(
                        record.key == f"{QUIET}/call".encode()
                        for records in (await consumer.getmany(timeout_ms=100)).values()
                        for record in records
                    ):
                        pass
                took.append(time.monotonic() - begin)
                number += 1
            assert (child.running, child.pid) == (True, pid), child.output()
    finally:
        child.stop()
    took.sort()
    logging.getLogger(__name__).warning(
        "%d batches taken, frames %d, p95 %.2f s", taken, len(took), took[-len(took) // 20]
    )
    assert "stage_failed" not in child.log.read_text(), "it is a dead letter, and a fault of ours all the same"
    assert took[len(took) // 2] < 2
