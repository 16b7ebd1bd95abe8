"""However a client slices, repeats or reorders its frames, the pipeline's finals are the same (promise 4)."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from kaption.adapters.settings import Settings
from kaption.testing.brokers import Broker
from kaption.testing.pipeline import Record, bodies, committed, frames, pipeline, publish, reasons
from kaption.testing.topics import create_topics
from kaption_schemas.headers import event_headers, pcm_type, sequence
from kaption_schemas.topics import Type
from tests.support.pool import speech

pytestmark = pytest.mark.timeout(280)

SECONDS = 10.0


def run_id(number: int) -> str:
    return f"01K{number:023d}"


def at_random(stream: str, run: str, dice: random.Random) -> list[Record]:
    """Frames of 20 ms to a second."""
    pcm, rate = speech("harbour-1-joe", SECONDS)
    out: list[Record] = []
    at = 0
    while at < len(pcm):
        size = min(rate * dice.randint(20, 1000) // 1000, len(pcm) - at)
        if 0 < len(pcm) - at - size < rate // 50:  # what is left must be a frame of its own
            size = len(pcm) - at
        place = {"sequence": sequence(len(out)), "firstsample": str(at)}
        headers = event_headers(
            Type.FRAME, id=f"{run}-{at}", source="/test", run=run, content_type=pcm_type(rate, 1), extra=place
        )
        out.append((stream.encode(), pcm[at : at + size].tobytes(), headers))
        at += size
    body = b'{"last_sequence": %d}' % (len(out) - 1)
    out.append((stream.encode(), body, event_headers(Type.ENDED, id=f"{run}-end", source="/test", run=run)))
    return out


def variants() -> dict[str, list[Record]]:
    pcm, rate = speech("harbour-1-joe", SECONDS)
    dice = random.Random(4)
    plain = {ms: frames(f"every-{ms}", run_id(ms), pcm, rate, ms) for ms in (100, 20, 1000)}
    twice = [record for record in frames("twice", run_id(2), pcm, rate) for _ in range(2)]
    mixed = frames("mixed", run_id(3), pcm, rate)
    # Each frame moves by at most eight places, the end stays where it is.
    order = sorted(range(len(mixed) - 1), key=lambda n: n + dice.uniform(0, 8))
    return {
        **{f"every {ms} ms": records for ms, records in plain.items()},
        "of random length": at_random("random", run_id(5), dice),
        "twice": twice,
        "reordered": [*(mixed[n] for n in order), mixed[-1]],
    }


async def test_finals_do_not_depend_on_how_frames_come(
    kafka: Broker, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings(kafka, redaction=())
    await create_topics(settings)
    kinds = variants()
    async with pipeline(settings, tmp_path):
        seconds = SECONDS / 2  # twice as fast as it was spoken
        await asyncio.gather(*(publish(settings, r, per_second=len(r) / seconds) for r in kinds.values()))
        records = await committed(settings, len(kinds))
    assert reasons(records) == []
    finals = bodies(records, Type.FINAL)
    found = {
        name: [
            (f["segment"], f["start_sample"], f["end_sample"], f["text"], f["words"])
            for f in finals
            if f["stream"] == stream[0][0].decode()  # type: ignore[union-attr]  # these all have keys
        ]
        for name, stream in kinds.items()
    }
    for name, run in found.items():
        assert run == found["every 100 ms"], name
    repeats = {c["stream"]: c["repeats"] for c in bodies(records, Type.COMPLETED)}
    assert repeats["twice"] == len(frames("twice", run_id(2), *speech("harbour-1-joe", SECONDS))) - 1
