"""Tests the whole path on real brokers with the real model: a plain client's frames come back as finals, whatever else arrives."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.wer import wer
from kaption.adapters.settings import Settings
from kaption.testing.brokers import Broker
from kaption.testing.pipeline import (
    Record,
    agent,
    bodies,
    committed,
    frames,
    metrics,
    pipeline,
    publish,
    ready,
    reasons,
)
from kaption.testing.topics import create_topics
from kaption_schemas.headers import event_headers
from kaption_schemas.topics import Type
from tests.support.pool import SPEECH, speech

pytestmark = pytest.mark.timeout(280)

SECONDS = 12.0
GOOD, BAD, OTHER = (f"01K{'0' * 22}{digit}" for digit in "789")


def good() -> list[Record]:
    pcm, rate = speech("harbour-1-joe", SECONDS)
    return frames("good", GOOD, pcm, rate)


def hostile() -> list[Record]:
    """Make a run with every fault that a record can have; the good run next to it must not change."""
    pcm, rate = speech("harbour-2-slt", 6)
    stream = frames("bad", BAD, pcm, rate)
    key, value, headers = stream[5]
    plain = dict(headers)
    ended = stream.pop()

    def like(**changes: bytes | None) -> Record:
        head = {**plain, **{f"ce_{n}": v for n, v in changes.items() if v is not None}}
        return key, value, [(n, v) for n, v in head.items() if n.removeprefix("ce_") not in changes or v is not None]

    wrong: list[Record] = [
        (None, value, headers),
        (key, None, headers),
        (key, (value or b"")[:-1], headers),
        (key, value, []),
        (key, value, [*headers, *((f"x{n}", b"") for n in range(500))]),
        (key, value, [*headers, *((f"x{n}", b"") for n in range(10_000))]),
        (key, value, [*headers, ("x", b"\xff\xfe")]),
        (key, b'{"a":' * 1000 + b"1" + b"}" * 1000, event_headers(Type.STARTED, id="x", source="/t", run=BAD)),
        like(specversion=b"9"),
        like(type=b"kaption.audio.film"),
        like(run=b"../../etc"),
        like(firstsample=b"-4"),
        (key, b"x" * 900_000, headers),
        (key, b"fLaC" + b"\0" * 4000, [*((n, v) for n, v in headers if n != "content-type"), ("content-type", b"audio/flac;rate=16000;channels=1")]),
    ]  # fmt: skip
    return [*stream[:10], *wrong, *stream[10:20], stream[12], *stream[22:], ended, stream[30]]


async def test_a_good_run_is_the_same_beside_hostile_ones(
    kafka: Broker, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings(kafka, redaction=())
    await create_topics(settings)
    async with pipeline(settings, tmp_path) as (front, pool):
        await publish(settings, good())
        alone = bodies(await committed(settings, 1), Type.FINAL, "good")
        other = [
            (key, value, [(n, OTHER.encode() if n == "ce_run" else v) for n, v in head]) for key, value, head in good()
        ]
        await asyncio.gather(publish(settings, other), publish(settings, hostile()))
        records = await committed(settings, 3)
        measured = {child: await asyncio.to_thread(metrics, child) for child in (front, pool)}
    assert 'asr_dlq_total{reason="odd_bytes"} 1.0' in measured[front]
    assert 'kaption_records_total{topic="audio.live.v1",type="kaption.audio.chunk"}' in measured[front]
    for name in ("asr_time_to_first_partial_seconds", "asr_end_to_end_latency_seconds", "asr_final_latency_seconds"):
        assert f"{name}_count{{" in measured[pool]
    beside = [b for b in bodies(records, Type.FINAL, "good") if b["run"] == OTHER]
    assert [(b["start_sample"], b["end_sample"], b["text"]) for b in beside] == [
        (b["start_sample"], b["end_sample"], b["text"]) for b in alone
    ]
    said = " ".join(b["text"] for b in alone)
    assert wer([" ".join((SPEECH / "harbour-1-joe.txt").read_text().split()[: len(said.split())])], [said]) <= 0.1
    assert reasons(records) == sorted([
        "bad_key", "empty_body", "odd_bytes", "not_cloudevents", "bad_headers", "bad_headers", "bad_json",
        "unsupported_version", "unknown_type", "bad_run", "bad_firstsample", "body_too_large", "undecodable", "run_closed",
        "undecodable_batch",
    ])  # fmt: skip
    bad = bodies(records, Type.FINAL, "bad")
    assert [b["start_sample"] for b in bad] == [0, *(b["end_sample"] for b in bad[:-1])]
    gaps = bodies(records, Type.GAP, "bad")
    assert [(g["first_sequence"], g["reason"]) for g in gaps] == [(20, "lost")]


async def test_an_agent_that_is_killed_loses_and_doubles_nothing(
    kafka: Broker, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings(kafka, redaction=(), session_timeout_ms=6000)
    await create_topics(settings)
    async with pipeline(settings, tmp_path) as (front, _):
        await publish(settings, good())
        alone = bodies(await committed(settings, 1), Type.FINAL)
        again = [
            (key, value, [(n, OTHER.encode() if n == "ce_run" else v) for n, v in head]) for key, value, head in good()
        ]
        publishing = asyncio.create_task(publish(settings, again, per_second=20))
        await asyncio.sleep(2.5)
        front.kill()
        successor = agent(settings, tmp_path / "second.log")
        successor.spawn()
        try:
            await ready(successor)
            await publishing
            records = await committed(settings, 2)
        finally:
            successor.stop()
    killed = [b for b in bodies(records, Type.FINAL) if b["run"] == OTHER]
    assert [(b["segment"], b["start_sample"], b["end_sample"], b["text"]) for b in killed] == [
        (b["segment"], b["start_sample"], b["end_sample"], b["text"]) for b in alone
    ]
    assert reasons(records) == []
