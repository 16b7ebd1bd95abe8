"""Measures the live agent alone: frames per second on one core, the hop's latency, and the memory while a broker is stopped.

    .venv/bin/python -m bench.hop [--seconds 20] [--stopped 60]

It runs one node of Apache Kafka (KAFKA_HOME or ../shared/kafka, 256 MiB of heap). The agent is pinned to the last core.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from aiokafka import AIOKafkaProducer, TopicPartition

from bench import figures as kept
from bench.processes import end_as_by_hand
from kaption.adapters.kafka.clients import Consumer, security
from kaption.adapters.settings import Settings
from kaption.testing.brokers import NO_APACHE, ApacheNode, kafka_home
from kaption.testing.pipeline import Record, agent, frames, ready
from kaption.testing.processes import Child
from kaption.testing.topics import create_topics
from kaption_schemas.headers import text_headers
from kaption_schemas.topics import EVENTS, LIVE

RATE = 16000
STREAMS = 32


def streams(count: int) -> list[Record]:
    """Make ``count`` frames of 100 ms, of 32 runs in turn."""
    noise = np.random.default_rng(1).integers(-2000, 2000, (RATE // 10 * (count // STREAMS), 1)).astype(np.int16)
    runs = [frames(f"hop-{n}", f"01K{n:023d}", noise, RATE)[:-1] for n in range(STREAMS)]
    return [record for turn in zip(*runs, strict=True) for record in turn]


async def publish(settings: Settings, records: list[Record], per_second: float | None = None) -> None:
    """Send records, at a pace if given, without waiting for each."""
    options = security(settings) | {"linger_ms": 0 if per_second else 20, "request_timeout_ms": 180_000}
    async with AIOKafkaProducer(**options) as producer:
        start, pending = time.monotonic(), []
        for number, (key, value, headers) in enumerate(records):
            if per_second:
                await asyncio.sleep(max(0.0, start + number / per_second - time.monotonic()))
            pending.append(await producer.send(EVENTS.name, value, key=key, headers=headers))
        await asyncio.gather(*pending)


async def chunks(settings: Settings, count: int, seconds: float = 180) -> list[tuple[int, int]]:
    """Return (append time, append time of the publisher's record) in ms of ``count`` different audio records.

    A repeat after a broker's fault does not count, since sessions drop it.
    """
    out: dict[str, tuple[int, int]] = {}
    async with Consumer(**security(settings), auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(LIVE.name, n) for n in range(settings.partitions)])
        async with asyncio.timeout(seconds):
            while len(out) < count:
                for batch in (await consumer.getmany(timeout_ms=500)).values():
                    for record in batch:
                        head = text_headers(record.headers)
                        out.setdefault(head["ce_id"], (record.timestamp, int(head["ce_received"])))
    return list(out.values())


def resident(child: Child) -> float:
    """Return a process's memory in MB."""
    for line in Path(f"/proc/{child.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


async def started(settings: Settings, folder: Path) -> Child:
    """Start an agent on the last core, and wait until it is ready."""
    child = agent(settings, folder / f"{settings.group}.log")
    child.spawn()
    os.sched_setaffinity(child.pid, {max(os.sched_getaffinity(0))})
    await ready(child)
    return child


async def throughput(settings: Settings, folder: Path) -> float:
    """Return frames per second, from a backlog of 16,000."""
    records = streams(16_000)
    await publish(settings, records)
    child = await started(settings, folder)
    try:
        times = sorted(appended for appended, _ in await chunks(settings, len(records)))
    finally:
        child.stop()
    return (len(times) - 1) * 1000 / (times[-1] - times[0])


async def latency(settings: Settings, folder: Path, seconds: float) -> tuple[float, float]:
    """Return median and 95th percentile of the hop's latency at 320 frames per second, in ms."""
    records = streams(round(320 * seconds))
    child = await started(settings, folder)
    try:
        await publish(settings, records, 320)
        added = sorted(appended - received for appended, received in await chunks(settings, len(records)))
    finally:
        child.stop()
    return statistics.median(added), added[round(0.95 * len(added))]


async def stopped(settings: Settings, folder: Path, broker: ApacheNode, seconds: float) -> tuple[float, int]:
    """Return the MB by which the agent grew while the broker was stopped, and the records lost."""
    records = streams(3200)
    child = await started(settings, folder)
    try:
        await publish(settings, records[:1600], 320)
        await chunks(settings, 1600)
        before = most = resident(child)
        publishing = asyncio.create_task(publish(settings, records[1600:], 320))
        await asyncio.sleep(2)
        broker.child.pause()
        for _ in range(round(seconds)):
            await asyncio.sleep(1)
            most = max(most, resident(child))
        broker.child.resume()
        await publishing
        arrived = await chunks(settings, len(records))
        most = max(most, resident(child))
    finally:
        child.stop()
    return most - before, len(records) - len(arrived)


async def main() -> None:
    """Run the three, each on its own topics."""
    end_as_by_hand()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--stopped", type=float, default=60)
    parser.add_argument("--runs", type=int, default=3)
    kept.add_option(parser)
    arguments = parser.parse_args()
    home = kafka_home()
    if home is None:
        raise SystemExit(NO_APACHE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        async def each(part: str) -> tuple[Settings, ApacheNode]:
            broker = ApacheNode(home, folder / part)
            await broker.start()
            settings = Settings(kafka=broker.bootstrap, group=part, partitions=8)
            await create_topics(settings)
            return settings, broker

        measured: list[dict[str, float]] = []
        for run in range(arguments.runs):
            settings, broker = await each(f"throughput-{run}")
            speed = await throughput(settings, folder)
            print(f"frames a second on one core: {speed:.0f} (goal >= 2000)", flush=True)
            broker.kill()
            settings, broker = await each(f"latency-{run}")
            median, high = await latency(settings, folder, arguments.seconds)
            print(f"added at 320 frames/s: median {median:.0f} ms (goal <= 15), p95 {high:.0f} ms", flush=True)
            broker.kill()
            measured.append({"frames a second": speed, "added ms": median, "added ms p95": high})
        figures = kept.spread(measured)
        if arguments.stopped:
            settings, broker = await each("stopped")
            grown, lost = await stopped(settings, folder, broker, arguments.stopped)
            print(
                f"broker stopped for {arguments.stopped:.0f} s: {grown:.0f} MB (goal < 50), {lost} records lost (goal 0)"
            )
            broker.kill()
            figures |= {"stopped MB": grown, "stopped lost": float(lost)}
    kept.save(arguments, "hop", figures)


if __name__ == "__main__":
    asyncio.run(main())
