"""A lane keeps a record of a run only while it may have to be dead-lettered."""

import weakref

from aiokafka.structs import ConsumerRecord

from kaption.domain.records import Latency
from kaption_gpu.bootstrap import RealSessions
from kaption_gpu.lanes.data import SavedLane, Source
from kaption_gpu.lanes.memory import LaneMemory
from kaption_gpu.lanes.records import parse
from kaption_schemas.headers import event_headers, pcm_type, sequence, text_headers
from kaption_schemas.topics import LIVE, Type
from tests.support.runs import CONFIG, PORTS

RUN = "01HZZZZZZZZZZZZZZZZZZZZZZZ"
SAMPLES = 1600


def frame(offset: int, number: int, first: int) -> ConsumerRecord:
    extra = {"received": "1", "sequence": sequence(number), "firstsample": str(first)}
    headers = event_headers(Type.CHUNK, id="x", source="x", run=RUN, content_type=pcm_type(16_000, 1), extra=extra)
    body = bytes([offset + 1]) * (2 * SAMPLES)
    return ConsumerRecord(LIVE.name, 0, offset, 1000, 1, b"default/call", body, None, 0, 0, tuple(headers))


def take(memory: LaneMemory, record: ConsumerRecord) -> "weakref.ref[ConsumerRecord]":
    """Hand the record over; what comes back tells whether it is still held."""
    memory.take(record, parse(record, Latency.LIVE))
    return weakref.ref(record)


def lane() -> LaneMemory:
    return LaneMemory(
        Source(Latency.LIVE, 0), RealSessions(CONFIG, PORTS), SavedLane(), position=0, epoch=0, silence_ms=0
    )


def test_a_frame_that_waited_and_overlaps_is_dead_lettered_as_it_came() -> None:
    memory = lane()
    taken, waiting = take(memory, frame(0, 0, 0)), take(memory, frame(1, 2, SAMPLES))
    assert taken() is None
    assert waiting() is not None, "the one before it may overlap with it"
    take(memory, frame(2, 1, SAMPLES))
    draft = memory.draft(2000)
    assert draft is not None
    [letter] = [m for m in draft.messages if "errors.offset" in text_headers(m.headers)]
    assert text_headers(letter.headers)["errors.reason"] == "samples_overlap"
    assert (text_headers(letter.headers)["errors.offset"], letter.value) == ("1", frame(1, 2, SAMPLES).value)


def test_a_backlog_keeps_no_records() -> None:
    memory = lane()
    # The frame that waited for the one before it is not kept longer than that.
    taken = [take(memory, frame(offset, number, number * SAMPLES)) for offset, number in enumerate((0, 2, 1, 3))]
    assert [record() for record in taken] == [None] * 4
