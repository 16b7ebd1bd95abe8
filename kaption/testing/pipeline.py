"""Runs agent and pool as processes, and publishes with a plain aiokafka client, for tests of the whole path."""

import asyncio
import json
import os
import sys
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.structs import ConsumerRecord

from kaption.adapters.kafka.clients import Consumer, security
from kaption.adapters.processes.tcp_ports import free_port
from kaption.adapters.settings import Settings, child_environment
from kaption.testing.processes import Child
from kaption_schemas.headers import Headers, event_headers, pcm_type, sequence, text_headers
from kaption_schemas.topics import DLQ, EVENTS, FINAL, Type, topic_name


def worker(settings: Settings, log: Path, port: int = 0) -> Child:
    """Make a pool worker that is not started; its environment names its health port in ``KAPTION_HTTP_PORT``."""
    env = child_environment(settings) | {"KAPTION_HTTP_PORT": str(port or free_port()), "OMP_NUM_THREADS": "1"}
    return Child([sys.executable, "-m", "kaption_gpu"], log, env)


def agent(settings: Settings, log: Path, *arguments: str) -> Child:
    """Make an agent that is not started; ``arguments`` choose it, the live one by default."""
    env = worker(settings, log).env | {"KAPTION_HTTP_PORT": str(free_port())}
    return Child([sys.executable, "-m", "kaption_streams", *(arguments or ("live",))], log, env)


async def ready(child: Child, seconds: float = 60) -> None:
    """Wait until the worker is warm. Raises ``RuntimeError`` with its log if it ends or takes longer."""
    url = f"http://127.0.0.1:{child.env['KAPTION_HTTP_PORT']}/ready"
    for _ in range(round(seconds / 0.2)):
        if not child.running:
            break
        if await asyncio.to_thread(_answers, url):
            return
        await asyncio.sleep(0.2)
    raise RuntimeError(f"the worker is not ready (pid {os.getpid()}):\n{child.output()}")


async def is_ready(child: Child) -> bool:
    """Whether the worker reports that it is ready."""
    return await asyncio.to_thread(_answers, f"http://127.0.0.1:{child.env['KAPTION_HTTP_PORT']}/ready")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as response:  # noqa: S310  # a fixed http URL on loopback
            return bool(response.status == 200)
    except OSError:
        return False


@asynccontextmanager
async def pipeline(settings: Settings, folder: Path) -> AsyncIterator[tuple[Child, Child]]:
    """Run one agent and one pool worker, ready, and stop them at the end."""
    children = (agent(settings, folder / "agent.log"), worker(settings, folder / "pool.log"))
    with children[0].during(), children[1].during():
        for child in children:
            await ready(child)
        yield children


Record = tuple[bytes | None, bytes | None, Headers]


def frames(stream: str, run: str, pcm: npt.NDArray[np.int16], rate: int, milliseconds: int = 100) -> list[Record]:
    """Make a run of plain frames without ``started``, and its end, as a client would write them."""
    size = rate * milliseconds // 1000
    out: list[Record] = []
    for number, at in enumerate(range(0, len(pcm), size)):
        place = {"sequence": sequence(number), "firstsample": str(at)}
        headers = event_headers(
            Type.FRAME, id=f"{run}-{number}", source="/test", run=run, extra=place,
            content_type=pcm_type(rate, pcm.shape[1]),
        )  # fmt: skip
        out.append((stream.encode(), pcm[at : at + size].astype("<i2").tobytes(), headers))
    body = json.dumps({"last_sequence": len(out) - 1}).encode()
    out.append((stream.encode(), body, event_headers(Type.ENDED, id=f"{run}-end", source="/test", run=run)))
    return out


async def publish(
    settings: Settings, records: Sequence[Record], *, tenant: str = "default", per_second: float = 40
) -> None:
    """Send records at a pace, and wait for each."""
    producer = AIOKafkaProducer(**security(settings), acks="all")
    await producer.start()
    try:
        for key, value, headers in records:
            await producer.send_and_wait(topic_name(EVENTS, tenant), value, key=key, headers=headers)
            await asyncio.sleep(1 / per_second)
    finally:
        await producer.stop()


async def committed(settings: Settings, completions: int, seconds: float = 120) -> list[ConsumerRecord]:
    """Return everything on the final and dead-letter topics once ``completions`` runs have completed."""
    consumer = Consumer(
        **security(settings), isolation_level="read_committed", auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    records: list[ConsumerRecord] = []
    try:
        names = [topic_name(topic, tenant) for topic in (FINAL, DLQ) for tenant in settings.tenants]
        consumer.assign([TopicPartition(name, n) for name in names for n in range(settings.partitions)])
        async with asyncio.timeout(seconds):
            while sum(kind(r) == Type.COMPLETED for r in records) < completions:
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    records += batch
        for batch in (await consumer.getmany(timeout_ms=700)).values():
            records += batch
    finally:
        await consumer.stop()
    return records


def kind(record: ConsumerRecord) -> str:
    """Return a record's ``ce_type``."""
    return text_headers(record.headers).get("ce_type", "")


def bodies(records: Sequence[ConsumerRecord], type: Type, stream: str | None = None) -> list[dict[str, Any]]:
    """Return the bodies of one type in order, of one stream if named."""
    found = [json.loads(r.value) for r in records if kind(r) == type and "errors.reason" not in text_headers(r.headers)]
    return [body for body in found if stream in (None, body["stream"])]


def reasons(records: Sequence[ConsumerRecord]) -> list[str]:
    """Return the reason codes of the dead letters, sorted."""
    heads = [text_headers(record.headers) for record in records]
    return sorted(head["errors.reason"] for head in heads if "errors.reason" in head)


def metrics(child: Child) -> str:
    """Return a process's metrics in Prometheus' text format."""
    url = f"http://127.0.0.1:{child.env['KAPTION_HTTP_PORT']}/metrics"
    with urllib.request.urlopen(url, timeout=5) as response:  # a fixed http URL on loopback
        return bytes(response.read()).decode()
