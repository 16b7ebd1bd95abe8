"""A run whose `started` was refused is closed with that reason: its frames never go on under a weaker policy (promise 6)."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import repeat

import pytest
from aiokafka.structs import ConsumerRecord

from kaption.client.transcripts import parse as parse_transcript
from kaption.domain.intake.refusal import Refusal
from kaption.domain.intake.stages import Tools, accept
from kaption.domain.records import AudioRecord, Latency, Output
from kaption.domain.run.session import Session
from kaption.testing.voices import DigitRedactor
from kaption_gpu.bootstrap import RealSessions
from kaption_gpu.lanes.data import Draft, SavedLane, Source
from kaption_gpu.lanes.memory import LaneMemory
from kaption_gpu.lanes.records import parse
from kaption_schemas.codec import Origin, encode_event
from kaption_schemas.content_type import FrameFormat
from kaption_schemas.headers import event_headers, pcm_type, sequence, text_headers
from kaption_schemas.reasons import Reason
from kaption_schemas.records import Gap, StreamCompleted, StreamRefused
from kaption_schemas.topics import EVENTS, LIVE, Type
from tests.support.runs import CONFIG, KEY, PORTS, START_MS, babble, finals, play, records, session
from tests.unit.test_session_faults import completed, number, reasons, started

RATE = 16_000
PCM = babble([(0.5, False), (1.5, True), (1.0, False)], RATE)
FRAMES = len(PCM) // 1600


def stream() -> list[AudioRecord]:
    return records(PCM, repeat(1600), RATE)


def marker(reason: str = "clock_skew") -> AudioRecord:
    said = StreamRefused.model_validate({"reason": reason})
    return AudioRecord(Type.REFUSED, KEY, 0, START_MS, START_MS, reason=said.reason)


def test_the_run_is_closed_and_what_follows_is_refused() -> None:
    out = play(session(), number([marker(), *stream()]))
    assert (completed(out).reason, completed(out).segments) == (Reason.CLOCK_SKEW, 0)
    assert reasons(out) == [Reason.RUN_CLOSED] * FRAMES
    assert finals(out) == []


def test_a_valid_start_behind_it_comes_too_late() -> None:
    out = play(session(), number([marker(), started(), *stream()]))
    assert reasons(out) == [Reason.RUN_CLOSED] * (FRAMES + 1)


@pytest.mark.parametrize("first", [started(), stream()[0]])
def test_a_run_that_has_begun_goes_on(first: AudioRecord) -> None:
    rest = stream()[1:] if first.kind is Type.CHUNK else stream()
    out = play(session(), number([first, marker(), *rest]))
    assert (completed(out).reason, reasons(out)) == (Reason.ENDED, [])
    assert finals(out) == finals(play(session(), number(stream())))


def test_frames_that_wait_for_one_before_them_are_refused_too() -> None:
    whole = stream()
    run = session()
    out = play(run, number([whole[2], whole[3], marker(), *whole]))
    assert (completed(out).segments, completed(out).samples) == (0, 0)
    assert reasons(out) == [Reason.RUN_CLOSED] * (FRAMES + 2)
    assert run.settled_offset() is None


def test_the_marker_again_is_nothing_new() -> None:
    run = session()
    play(run, [marker()])
    assert run.feed(replace(marker(), offset=1)) == []
    again = Session.restore(run.snapshot(), CONFIG, PORTS)
    assert again.feed(replace(marker(), offset=2)) == []


def test_a_code_of_a_newer_version_is_read() -> None:
    out = play(session(), [marker("a_code_of_next_year")])
    assert completed(out).reason is Reason.UNKNOWN_REASON
    body = Gap(run=KEY.run, first_sequence=0, last_sequence=0, first_sample=0, samples=0, reason=Reason.LOST)
    new = body.model_dump_json().replace('"lost"', '"a_code_of_next_year"')
    assert Gap.model_validate_json(new).reason is Reason.UNKNOWN_REASON
    assert StreamRefused.model_validate({"reason": Reason.LOST}).reason is Reason.LOST


def published(kind: Type, body: bytes, content: str = "application/json", **extra: str) -> Origin:
    headers = event_headers(kind, id="1", source="/test", run=KEY.run, content_type=content, extra=extra)
    return Origin("default", EVENTS.name, 0, 0, START_MS, b"call", body, tuple(headers))


def through_the_stages(events: Iterable[Origin]) -> list[ConsumerRecord]:
    """What the live agent puts on the audio topic."""

    def no_decoder(body: bytes, what: FrameFormat, tenant: str) -> bytes:
        raise AssertionError("no frame of these tests is in a container")

    tools = Tools(DigitRedactor(), (), no_decoder, frozenset({"NUMBER"}))
    out: list[ConsumerRecord] = []
    for origin in events:
        result = accept(origin, tools)
        for event in ([result.mark] if result.mark else []) if isinstance(result, Refusal) else result:
            at = len(out)
            made = encode_event(event, LIVE)
            out.append(
                ConsumerRecord(LIVE.name, 0, at, START_MS + at, 1, made.key, made.value, None, 0, 0, made.headers)
            )
    return out


def test_through_stages_and_lane_it_is_committed_before_any_frame_is_decoded() -> None:
    frames = [
        published(Type.FRAME, r.body, pcm_type(RATE, 1), sequence=sequence(r.sequence), firstsample=str(r.first_sample))
        for r in stream()[:-1]
    ]
    refused = published(Type.STARTED, b'{"options": {"redaction": ["NUMBER", "PERSON"]}}')
    log = through_the_stages([refused, *frames])
    asked: list[str] = []

    def refusal(tenant: str, here: int, *, new: bool) -> None:
        asked.append(tenant)

    memory = LaneMemory(
        Source(Latency.LIVE, 0), RealSessions(CONFIG, PORTS), SavedLane(), position=0, epoch=0, silence_ms=0,
        refusal=refusal,
    )  # fmt: skip
    for record in log:
        memory.take(record, parse(record, Latency.LIVE))
    assert not list(memory.wants(START_MS + 60_000))
    draft = memory.draft(START_MS + 60_000)
    assert draft is not None
    done = [t for t in transcripts(draft) if isinstance(t, StreamCompleted)]
    assert [(d.reason, d.segments) for d in done] == [(Reason.UNKNOWN_ENTITY, 0)]
    assert draft.stats.dead_letters == (Reason.RUN_CLOSED,) * FRAMES, (
        "the marker has no letter: the `started` has its own"
    )
    assert asked == [], "it opens nothing that a full pool could turn away"
    assert draft.offset == len(log)


def transcripts(draft: Draft) -> list[Output]:
    named = [(text_headers(m.headers), m) for m in draft.messages]
    return [
        found  # type: ignore[misc]  # progress is not among them
        for head, m in named
        if "errors.reason" not in head and (found := parse_transcript(m.headers, m.value)) is not None
    ]
