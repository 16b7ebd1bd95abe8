"""A run on which going on fails is closed, and says so; its lane, and other tenants' runs, go on (promises 1 and 7)."""

import json
from ast import literal_eval
from dataclasses import replace
from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord

from kaption.domain.decoding.port import Decoded, Kind
from kaption.domain.redaction.matches import Match
from kaption.domain.run.config import Ports, SessionConfig
from kaption.testing.voices import MODEL, DigitRedactor, EnergyDetector
from kaption_gpu.bootstrap import RealSessions
from kaption_gpu.lanes.memory import LaneMemory
from kaption_schemas.audio import MAX_CHANNELS
from kaption_schemas.topics import Type
from tests.support.lane_log import Committed, record, take
from tests.support.runs import babble

RATE = 16_000
FRAME = 1600
TENANTS = ("acme", "globex")


class Fragile(DigitRedactor):
    """Fails on one text, each time."""

    def find(self, text: str, entities: tuple[str, ...]) -> tuple[Match, ...]:
        if "boom" in text:
            raise ZeroDivisionError
        return super().find(text, entities)


def calls(pauses: tuple[float, ...]) -> list[ConsumerRecord]:
    """A call of two tenants at once, each word followed by a pause, and the end where there is none."""
    parts = [(0.5, False)] + [part for pause in pauses for part in ((1.5, True), (pause, False))]
    pcm = babble(parts, RATE)
    out: list[ConsumerRecord] = []
    for number in range(len(pcm) // FRAME):
        body = pcm[number * FRAME : (number + 1) * FRAME].tobytes()
        for run, tenant in enumerate(TENANTS):
            item = record(len(out), "call", run, Type.CHUNK, number, 0, samples=FRAME, tenant=tenant)
            out.append(replace(item, value=body, timestamp=1000 + number * 100))
    return out


def decode(memory: LaneMemory, texts: dict[str, list[str]]) -> None:
    """Decode the segments that are closed, the newest first: what is published waits for the oldest."""
    for key, want in reversed(list(memory.wants(memory.record_ms))):
        if want.kind is Kind.FINAL and want.overdue_s >= 0:
            memory.begin(key, want.window_id)
            text = texts[key.tenant][want.window_id // MAX_CHANNELS - 1]
            memory.apply(key, want.window_id, Decoded(text, "en", -0.2, 0.01, 1.1), memory.record_ms)


def bodies(broker: Committed, tenant: str) -> list[dict[str, Any]]:
    """What readers get of a tenant's run."""
    found = [literal_eval(output.partition(" ")[2]) for output in broker.outputs if "@" not in output]
    return [body for body in map(json.loads, found) if body["tenant"] == tenant]


def said(broker: Committed, tenant: str) -> list[str]:
    """Its texts, and the reasons of its gaps and of its end."""
    texts = [body.get("text", body.get("reason")) for body in bodies(broker, tenant)]
    return [text for text in texts if text]


@pytest.mark.parametrize(
    ("pauses", "texts", "at_once"),
    [
        ((1.0, 1.0, 1.0), ["one", "boom", "three"], False),  # raised as its decode is applied
        ((1.0, 1.0), ["one", "boom 4 1"], False),  # held for an open end, and raised as time passes
        ((1.0, 6.0, 1.0), ["one", "boom 4 1", "three"], False),  # and raised as a later frame comes
        ((1.0, 1.0, 1.0), ["one", "boom", "three"], True),  # raised in the call that publishes the one before
    ],
    ids=["apply", "tick", "feed", "at_once"],
)
def test_a_text_that_cannot_be_redacted_closes_its_run_and_no_other(
    pauses: tuple[float, ...], texts: list[str], *, at_once: bool
) -> None:
    config = SessionConfig(redaction=("NUMBER", "CREDIT_CARD"))
    broker = Committed(sessions=RealSessions(config, Ports(EnergyDetector, Fragile(), MODEL)))
    memory = broker.open(0)
    fine = ["one", "two", "three"][: len(texts)]
    hear = {"acme": texts, "globex": fine}
    log = calls(pauses)
    for item in log:
        take(memory, item)
        if not at_once:
            decode(memory, hear)
    for late in (40_000, 2_000_000):
        memory.tick(memory.record_ms + late)
        decode(memory, hear)
    broker.commit(memory, 3_000_000)
    assert said(broker, "globex") == [*fine, "idle"]
    assert said(broker, "acme") == ["one", "internal_error", "internal_error"]
    final, gap, completed = bodies(broker, "acme")
    assert gap["first_sample"] == final["end_sample"]
    assert gap["first_sample"] + gap["samples"] == completed["samples"]
    assert (completed["segments"], completed["gaps"]) == (1, 1)
    assert set(memory.faults) == {"ZeroDivisionError"}
    assert (memory.open_runs, broker.offset) == (0, len(log))
