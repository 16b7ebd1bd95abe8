"""Plays live streams in real time through the whole pipeline with a plain client, and the same speech as files.

    .venv/bin/python -m bench.live [--streams 4] [--count 10] [--seconds 60] [--runs 3] [--model base] [--files] [--kafka cluster]

`kaption up` on a private node of Apache Kafka (KAFKA_HOME or ../shared/kafka), everything on this machine. Latency of a
word: from its end in real time to the first record that shows it (shown), or that has it in a stable part or a final
(committed), by the broker's clock; of a final: from the end of its last word. Words and their ends are the offline
pass's; the first half of each stream does not count.
"""

import argparse
import asyncio
import io
import math
import os
import tempfile
import time
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import numpy.typing as npt
from aiokafka import AIOKafkaProducer, TopicPartition
from minio import Minio
from ulid import ULID

from bench import figures as kept
from bench.processes import Others, end_as_by_hand, shares, usages
from bench.speech import Heard, Spoken, joined, offline
from bench.wer import wer
from bench.words import Showing, erased, flicker, latencies, percentile
from kaption.adapters.kafka.clients import Consumer, security
from kaption.adapters.settings import Settings
from kaption.client.publisher import Publisher
from kaption.client.transcripts import parse
from kaption.domain.run.agreement import plain
from kaption.testing.brokers import ApacheCluster, kafka_home
from kaption.testing.pipeline import frames
from kaption.testing.up import Up, running_up
from kaption_schemas.headers import event_headers
from kaption_schemas.records import FinalTranscript, PartialTranscript, RunOptions, StreamCompleted, StreamStarted
from kaption_schemas.topics import EVENTS, FINAL, PARTIAL, Type

RATE = 16000
FRAME = 0.1
#: Options of every run: a known language and no redaction, so that words can be counted.
OPTIONS = RunOptions(language="en", redaction=())


@dataclass(slots=True)
class Watched:
    """One stream: when its sample 0 was published (ms), its records with their append times (ms), its end."""

    began: float = 0.0
    partials: list[tuple[int, PartialTranscript]] = field(default_factory=list)
    finals: list[tuple[int, FinalTranscript]] = field(default_factory=list)
    completed: StreamCompleted | None = None
    first: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Event = field(default_factory=asyncio.Event)


async def speak(producer: AIOKafkaProducer, name: str, run: str, spoken: Spoken, watched: Watched) -> None:
    """Publish one stream in real time."""
    key = name.encode()
    started = StreamStarted(options=OPTIONS).model_dump_json().encode()
    await producer.send_and_wait(
        EVENTS.name, started, key=key, headers=event_headers(Type.STARTED, id=run, source="/bench", run=run)
    )
    begin = time.monotonic()
    watched.began = time.time() * 1000
    for number, (_, value, headers) in enumerate(frames(name, run, spoken.pcm, RATE)):
        await asyncio.sleep(max(0.0, begin + (number + 1) * FRAME - time.monotonic()))
        await producer.send(EVENTS.name, value, key=key, headers=headers)


async def watch(settings: Settings, streams: dict[str, Watched]) -> None:
    """Collect the records of all streams until cancelled."""
    async with Consumer(**security(settings), isolation_level="read_committed") as consumer:
        consumer.assign([TopicPartition(t.name, n) for t in (PARTIAL, FINAL) for n in range(settings.partitions)])
        await consumer.seek_to_end()
        while True:
            for batch in (await consumer.getmany(timeout_ms=100)).values():
                for record in batch:
                    body = parse(record.headers, record.value)
                    watched = streams.get(getattr(body, "stream", ""))
                    if watched is None:
                        continue
                    if isinstance(body, PartialTranscript):
                        watched.partials.append((record.timestamp, body))
                    elif isinstance(body, FinalTranscript):
                        watched.finals.append((record.timestamp, body))
                        watched.first.set()
                    elif isinstance(body, StreamCompleted):
                        watched.completed = body
                        watched.done.set()


def showings(watched: Watched) -> list[Showing]:
    """Return a stream's records as its reader saw them."""
    records: list[tuple[int, PartialTranscript | FinalTranscript]] = [*watched.partials, *watched.finals]
    return [
        Showing(
            (at - watched.began) / 1000, body.segment, body.start_ms / 1000, body.end_ms / 1000, body.text, stable(body)
        )
        for at, body in records
    ]


def stable(body: PartialTranscript | FinalTranscript) -> str:
    """Return the stable part of a text: all of a final."""
    return body.text[: body.stable] if isinstance(body, PartialTranscript) else body.text


def final_latencies(watched: Watched, heard: Heard, begin: float) -> list[float]:
    """Return seconds from the end of each final's last word to its arrival, without finals whose last word ends before
    ``begin``.
    """
    out: list[float] = []
    for at, final in watched.finals:
        ends = [end for _, end in heard.words if final.start_ms / 1000 <= end <= final.end_ms / 1000]
        if ends and ends[-1] >= begin:
            out.append((at - watched.began) / 1000 - ends[-1])
    return out


def changed(watched: Watched) -> tuple[int, int]:
    """Count the words that were stable in a segment's last partial, and those of them that its final changes."""
    last = {p.segment: p for _, p in watched.partials}
    count = lost = 0
    for _, final in watched.finals:
        partial = last.get(final.segment)
        if partial is not None:
            before, after = ([plain(w) for w in t.split()] for t in (stable(partial), final.text))
            blocks = SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks()
            count, lost = count + len(before), lost + len(before) - sum(block.size for block in blocks)
    return count, lost


async def live(
    up: Up, stretches: list[Spoken], heard: list[Heard], at_once: int, name: str = "live"
) -> dict[str, float]:
    """Play the stretches, ``at_once`` at a time; print and return the figures."""
    settings = up.settings()
    streams = {f"{name}-{n}": Watched() for n in range(len(stretches))}
    watching = asyncio.create_task(watch(settings, streams))
    begin, before, others = time.monotonic(), usages(up.child.pid), Others()
    async with AIOKafkaProducer(**security(settings), linger_ms=10) as producer:
        names = list(streams)
        for first in range(0, len(names), at_once):
            batch = range(first, min(first + at_once, len(names)))
            await asyncio.gather(
                *(speak(producer, names[n], str(ULID()), stretches[n], streams[names[n]]) for n in batch)
            )
            async with asyncio.timeout(120):
                await asyncio.gather(*(streams[names[n]].done.wait() for n in batch))
    used = shares(before, after := usages(up.child.pid), took := time.monotonic() - begin)
    beside = others.cores(used)
    watching.cancel()
    print(f"live, {at_once} at a time: {len(stretches)} streams")
    figures = report(list(streams.values()), stretches, heard)
    cores = sum(used.values())
    # Streams have different lengths: towards the end fewer of them talk, and less is used.
    each = cores * took / (sum(len(stretch.pcm) for stretch in stretches) / RATE)
    figures |= {"cores": cores, "processor seconds a second of stream": each, "cores of others": beside}
    print(
        "  " + ", ".join(f"{share:.2f} {after[pid].name.split()[-1]}" for pid, share in used.items() if share >= 0.01)
    )
    print(f"  {cores:.2f} cores, {each:.3f} processor seconds a second of stream, {beside:.2f} of others", flush=True)
    return figures


def report(streams: list[Watched], stretches: list[Spoken], heard: list[Heard]) -> dict[str, float]:
    """Print and return the figures of played streams: seconds, shares, counts."""
    shown, committed, finals, late = list[float](), list[float](), list[float](), 0
    seen = [showings(watched) for watched in streams]
    for watched, records, stretch, words in zip(streams, seen, stretches, heard, strict=True):
        begin = len(stretch.pcm) / RATE / 2
        more = latencies(records, words, begin)
        shown, committed = shown + more[0], committed + more[1]
        finals += final_latencies(watched, words, begin)
        late += sum(end >= begin for _, end in words.words)
    said = [" ".join(final.text for _, final in watched.finals) for watched in streams]
    words_said = max(1, sum(len(text.split()) for text in said))
    count, lost = (sum(n) for n in zip(*map(changed, streams), strict=True))
    figures = {
        "words": float(sum(len(s.text.split()) for s in stretches)),
        "wer": wer([s.text for s in stretches], said),
        "wer offline": wer([s.text for s in stretches], [h.text for h in heard]),
        "revisions a word": sum(map(erased, seen)) / words_said,
        "flicker": flicker(seen),
        "stable changed": lost / max(1, count),
        "shown of all": len(shown) / max(1, late),
        "committed of all": len(committed) / max(1, late),
    }
    for name, values in (("shown", shown), ("committed", committed), ("finals", finals)):
        figures |= {f"{name} p50": percentile(values, 0.5), f"{name} p95": percentile(values, 0.95)}
        of = "" if values is finals else f" of {late} words"
        print(f"  {name:9} p50 {figures[f'{name} p50']:.2f} s, p95 {figures[f'{name} p95']:.2f} s ({len(values)}{of})")
    print(f"  {count} stable words, of which finals changed {100 * figures['stable changed']:.1f} %")
    print(f"  revisions: {figures['revisions a word']:.2f} shown words a word taken back or changed")
    print(f"  flicker: {100 * figures['flicker']:.0f} % of records change or take back a word that was shown")
    print(
        f"  WER {100 * figures['wer']:.2f} % of {figures['words']:.0f} words, offline {100 * figures['wer offline']:.2f} %"
    )
    return figures


async def put(settings: Settings, name: str, pcm: npt.NDArray[np.int16]) -> str:
    """Store PCM of shape (n, 1) as a WAV under the default tenant's prefix; return its key."""
    store = Minio(
        settings.s3.removeprefix("http://"),
        settings.s3_access_key,
        settings.s3_secret_key.get_secret_value(),
        secure=False,
    )
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setparams((1, 2, RATE, 0, "NONE", ""))
        sound.writeframes(pcm.tobytes())
    size = out.tell()
    out.seek(0)
    key = f"default/{name}.wav"
    await asyncio.to_thread(store.put_object, settings.media_bucket, key, out, size)
    return key


async def files(settings: Settings, stretches: list[Spoken]) -> tuple[float, float]:
    """Transcribe the same stretches as objects, all at once; return times real time and the word error rate."""
    streams = {f"file-{n}": Watched() for n in range(len(stretches))}
    watching = asyncio.create_task(watch(settings, streams))
    try:
        await asyncio.sleep(1)
        begin = time.monotonic()
        async with Publisher(settings) as publisher:
            for name, stretch in zip(streams, stretches, strict=True):
                key = await put(settings, name, stretch.pcm)
                await publisher.object(settings.media_bucket, key, stream=name, options=OPTIONS)
        async with asyncio.timeout(600):
            await asyncio.gather(*(watched.done.wait() for watched in streams.values()))
        took = time.monotonic() - begin
    finally:
        watching.cancel()
    seconds = sum(len(s.pcm) for s in stretches) / RATE
    said = [" ".join(f.text for _, f in watched.finals) for watched in streams.values()]
    print(f"files: {seconds:.0f} s of audio in {took:.0f} s, {seconds / took:.1f} times real time")
    errors = wer([s.text for s in stretches], said)
    print(f"  WER {100 * errors:.2f} %", flush=True)
    return seconds / took, errors


async def beside(up: Up, stretches: list[Spoken], heard: list[Heard], at_once: int, hours: float) -> None:
    """Play the live streams again while one long file is decoded."""
    whole = np.concatenate([s.pcm for s in stretches])
    long = np.tile(whole, (math.ceil(hours * 3600 * RATE / len(whole)), 1))
    settings = up.settings()
    film = {"film": Watched()}
    watching = asyncio.create_task(watch(settings, film))
    async with Publisher(settings) as publisher:
        key = await put(settings, "film", long)
        await publisher.object(settings.media_bucket, key, stream="film", options=OPTIONS)
    async with asyncio.timeout(300):
        await film["film"].first.wait()
    print(f"beside a file of {len(long) / RATE / 3600:.1f} h, in progress:")
    await live(up, stretches, heard, at_once, "beside")
    done = film["film"].finals[-1][1].end_ms / 1000
    print(f"  the file has got to {done:.0f} s{' and is finished' if film['film'].done.is_set() else ''}", flush=True)
    watching.cancel()


@asynccontextmanager
async def started(kafka: str) -> AsyncIterator[Up]:
    """Run the pipeline on a broker of the kind ``kafka``; for ``cluster``, start three nodes with replication 3 first."""
    with tempfile.TemporaryDirectory() as folder:
        cluster = None
        home = kafka_home()
        if kafka == "cluster":
            if home is None:
                raise SystemExit("set KAFKA_HOME: --kafka cluster runs three nodes of Apache Kafka")
            cluster = ApacheCluster(home, Path(folder))
            await cluster.start()
            os.environ["KAPTION_REPLICATION"] = str(cluster.replication)
        address = ("--kafka", cluster.bootstrap) if cluster else ("--kafka", kafka, "--kafka-port", "0")
        try:
            async with running_up(Path(folder), (*address, "--http-port", "0")) as up:
                yield up
        finally:
            if cluster:
                cluster.stop()


async def main() -> None:
    """Run the offline pass first, alone on the machine; then the pipeline."""
    end_as_by_hand()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=4, help="streams at a time")
    parser.add_argument("--count", type=int, default=10, help="streams in all")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--files", action="store_true", help="the same speech as files, too")
    parser.add_argument("--beside", type=float, default=0, help="again, while a file of this many hours is decoded")
    parser.add_argument("--kafka", default="apache", help="embedded, apache, or cluster: three nodes")
    parser.add_argument("--runs", type=int, default=1, help="of the live streams; medians and spread are kept")
    kept.add_model_option(parser)
    kept.add_option(parser)
    arguments = parser.parse_args()
    kept.use_model(arguments)
    home = kafka_home()
    if home is not None:
        os.environ.setdefault("KAFKA_HOME", str(home))
    stretches = joined(arguments.count, arguments.seconds)
    heard = offline(stretches, arguments.model)
    async with started(arguments.kafka) as up:
        runs = [await live(up, stretches, heard, arguments.streams, f"live-{n}") for n in range(arguments.runs)]
        figures = kept.spread(runs)
        if arguments.beside:
            await beside(up, stretches, heard, arguments.streams, arguments.beside)
        if arguments.files:
            figures["files times real time"], figures["files wer"] = await files(up.settings(), stretches)
    kept.save(arguments, "live", figures)


if __name__ == "__main__":
    asyncio.run(main())
