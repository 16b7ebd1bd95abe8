"""What a run makes of what comes follows from the log: not from what else waited, what was decoded, or who owned the lane."""

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import repeat

import pytest
from aiokafka.structs import ConsumerRecord
from pydantic import BaseModel

from kaption.client.transcripts import parse as typed
from kaption.domain.records import AudioRecord, Latency, Output
from kaption.domain.run.config import SessionConfig
from kaption.domain.run.ledger import Ledger
from kaption.domain.run.session import Session
from kaption.testing.voices import spell
from kaption_gpu.bootstrap import RealSessions
from kaption_gpu.lanes.data import SavedLane, Source
from kaption_gpu.lanes.memory import LaneMemory
from kaption_gpu.lanes.records import parse
from kaption_schemas.headers import event_headers, pcm_type, sequence, text_headers
from kaption_schemas.reasons import Reason
from kaption_schemas.records import FinalTranscript, Gap, StreamRefused
from kaption_schemas.topics import LIVE, Type
from tests.support.runs import KEY, PORTS, START_MS, babble, decode_all, finals, play, records, session
from tests.unit.test_session_faults import completed, gaps, number, reasons, started

RATE = 16_000
PCM = babble([(0.5, False), (1.5, True), (1.0, False), (1.0, True), (0.8, False)], RATE)


def stream() -> list[AudioRecord]:
    return records(PCM, repeat(1600), RATE)


def later(record: AudioRecord, ms: int, **changes: object) -> AudioRecord:
    """Return the record, received and appended later."""
    times = {"timestamp_ms": record.timestamp_ms + ms, "received_ms": record.received_ms + ms}
    return replace(record, **(times | changes))  # type: ignore[arg-type]  # any field


def gap(record: AudioRecord, reason: Reason = Reason.ODD_BYTES, first_sample: int | None = None) -> AudioRecord:
    at = record.first_sample if first_sample is None else first_sample
    # As the pool reads it: a gap says nothing of a format.
    return replace(record.as_gap(reason), rate=16_000, channels=1, first_sample=at)


# Where the clock begins


def test_silence_may_be_left_out_at_the_beginning() -> None:
    whole = [later(r, 40_000, first_sample=r.first_sample + 40 * RATE * (r.kind is Type.CHUNK)) for r in stream()]
    for log in ([started(), *whole], whole):
        out = play(session(), number(log))
        assert reasons(out) == []
        assert completed(out).samples == len(PCM) + 40 * RATE
        assert sum(not f.silent for f in out if isinstance(f, FinalTranscript)) == 2


def test_a_run_that_has_started_is_held_to_its_start() -> None:
    ahead = [replace(r, first_sample=r.first_sample + 40 * RATE) for r in stream()[:-1]]
    assert set(reasons(play(session(), number([started(), *ahead])))) == {Reason.SAMPLES_JUMP}


def test_a_run_whose_beginning_retention_took_goes_on_behind_a_gap() -> None:
    begin = 9000
    frames = [
        later(r, 4_000_000, sequence=r.sequence + 40_000, first_sample=r.first_sample + begin * RATE)
        for r in stream()[:-1]
    ]
    memory = lane(lost=True)
    out = [o for n, r in enumerate(frames) for o in take(memory, as_record(n, r))]
    assert [o for o in out if isinstance(o, str)] == []
    end = RATE * begin
    assert [(g.first_sample, g.samples, g.last_sequence, g.reason) for g in out if isinstance(g, Gap)] == [
        (0, end, 39_999, Reason.RETENTION)
    ]
    assert [f.speech_start_sample >= end for f in out if isinstance(f, FinalTranscript)]


# Who said it first


def test_other_bytes_under_a_sequence_of_long_ago_are_a_conflict_each() -> None:
    first = records(babble([(0.5, False), (1.5, True), (1.0, False)] * 8, RATE), repeat(1600), RATE, ended=False)
    again = records(babble([(0.5, False), (1.5, True)] * 5, RATE, seed=2), repeat(1600), RATE, ended=False)
    second = [later(r, first[-1].timestamp_ms - START_MS) for r in again]
    assert len(first) > len(second) + 128 - 60
    out = play(session(), number([*first, *second]))
    assert reasons(out) == [Reason.SEQUENCE_CONFLICT] * len(second)


def test_what_an_agent_delivers_again_is_counted_however_long_ago_it_was() -> None:
    first = records(babble([(0.5, False), (1.5, True), (1.0, False)] * 8, RATE), repeat(1600), RATE, ended=False)
    run = session()
    again = [replace(r, timestamp_ms=first[-1].timestamp_ms + 50) for r in first]
    out = play(run, number([started(), *first, replace(started(), timestamp_ms=again[0].timestamp_ms), *again]))
    assert reasons(out) == []
    assert run.repeats == len(first) + 1


def test_a_start_that_asks_for_something_else_is_refused() -> None:
    out = play(session(), number([started(), started(), started(language="en")]))
    assert reasons(out) == [Reason.ALREADY_STARTED]


def test_the_first_of_a_gap_and_its_correction_stands_whatever_else_waits() -> None:
    whole = stream()
    for before in ([*whole[:6]], [*whole[:5]]):  # the second waits for frame 5
        out = play(session(), number([*before, gap(whole[6]), whole[6], *whole[7:]]))
        assert Reason.LATE in reasons(out)
        assert (6, Reason.ODD_BYTES) in [(g[0], g[4]) for g in gaps(out)]
    out = play(session(), number([*whole[:5], whole[6], gap(whole[6]), whole[5], *whole[7:]]))
    assert (reasons(out), gaps(out)) == ([], [])


def test_frames_of_two_formats_are_never_mixed_in_a_run_without_a_start() -> None:
    whole = stream()
    whole[1] = replace(whole[1], rate=8000)
    swapped = [whole[1], whole[0], *whole[2:]]
    for log in (whole, swapped):
        out = play(session(), number(log))
        assert reasons(out) == [Reason.FORMAT_CHANGED]
        assert gaps(out) == [(1, 1, 1600, 1600, Reason.FORMAT_CHANGED)]
        assert completed(out).samples == len(PCM)


def test_a_gap_of_unknown_place_hastens_nothing() -> None:
    """A gap's rate and place are not its run's: neither says how much audio waits."""
    slow = records(babble([(3.0, True)], 48_000), repeat(9600), 48_000, ended=False)
    late = [*slow[:4], slow[5], gap(slow[6], first_sample=0), slow[7], slow[8], slow[4], *slow[9:]]
    out = play(session(), number(late))
    assert reasons(out) == []


def test_the_end_of_a_run_that_is_closing_is_no_news() -> None:
    run = session()
    for record in number(stream()[:15]):
        run.feed(record)
    run.close(Reason.SUPERSEDED, stream()[14].timestamp_ms)
    assert run.feed(replace(stream()[-1], offset=99)) == []


# What a restart needs


def killed_everywhere(log: Sequence[AudioRecord], config: SessionConfig) -> None:
    """Kill the session behind each record: what it wrote and what the next one writes is what an undisturbed one writes."""
    calm = durable(play(session(config=config), log))
    for crash in range(3, len(log)):
        run, out, saved, settled = session(config=config), list[str](), b"", 0
        for record in log[:crash]:
            made = durable(run.feed(record) + decode_all(run, record.timestamp_ms))
            if made:
                at = run.settled_offset()
                out, saved, settled = out + made, run.snapshot(), record.offset + 1 if at is None else at
        if saved:
            rest = [record for record in log if record.offset >= settled]
            assert out + durable(play(Session.restore(saved, config, PORTS), rest)) == calm, crash


def durable(outputs: Sequence[Output]) -> list[str]:
    return [o.model_dump_json() for o in outputs if isinstance(o, FinalTranscript | Gap)]


@pytest.mark.parametrize("lost", [5, 14, 20])
def test_a_burst_of_frames_that_waited_is_replayed_from_the_frame_of_the_cut(lost: int) -> None:
    pcm = babble([(0.64, False), (1.6, True), (0.64, False), (1.28, True), (1.6, False)], RATE)
    frames = records(pcm[: len(pcm) // 2560 * 2560], repeat(2560), RATE)
    killed_everywhere(number([r for r in frames if r.sequence != lost]), SessionConfig())


def test_a_gap_is_replayed_until_it_is_told() -> None:
    whole = records(babble([(1.44, True)], RATE), repeat(7680), RATE, ended=False)
    run = session()
    for record in number([*whole, gap(later(whole[-1], 500, sequence=3, first_sample=len(PCM)))]):
        run.feed(record)
    late = START_MS + 20_000
    assert finals(run.tick(late) + decode_all(run, late))
    offset = run.settled_offset()
    assert offset is not None
    assert offset <= 3, "the gap is not told yet"


def test_a_run_that_was_idle_for_a_quarter_of_an_hour_ends_as_one_that_was_seen_idle() -> None:
    half = stream()[:15]
    end = START_MS + 1_000_000
    watched, behind, superseded = session(), session(), session()
    told = []
    for run in (watched, behind, superseded):
        out = play(run, half)
        if run is watched:
            for now in range(half[-1].timestamp_ms, end, 1000):
                out += run.tick(now)
        if run is superseded:
            run.close(Reason.SUPERSEDED, end)
        told.append(out + run.tick(end) + decode_all(run, end))
    assert finals(told[0]) == finals(told[1]) == finals(told[2])
    assert [completed(out).reason for out in told] == [Reason.IDLE] * 3


def test_a_file_waits_longer_for_the_agent_that_writes_it() -> None:
    run = session(Latency.BATCH)
    for record in stream()[:15]:
        run.feed(record)
    assert not decode_all(run, 0) + run.tick(START_MS + 12_000) + decode_all(run, 0)
    assert finals(run.tick(START_MS + 40_000) + decode_all(run, 0))


def test_a_segment_whose_frames_are_forgotten_still_has_a_gap() -> None:
    ledger = Ledger(7)
    missing = ledger.holding(0, 100, Reason.DECODE_FAILED)
    assert (missing.first, missing.last) == (7, 7)


# Long silence


def away(minutes: int) -> list[AudioRecord]:
    """Return the stream, with some silence left out after its tenth frame."""
    whole, gone = stream(), minutes * 60
    behind = [later(r, gone * 1000, first_sample=r.first_sample + gone * RATE) for r in whole[10:-1]]
    return number([*whole[:10], *behind])


def test_a_long_silence_costs_what_a_short_one_does() -> None:
    """The worker's loop stands still for it, with all that the other runs need."""
    spent: list[float] = []
    for minutes in (2, 14):
        run = session()
        for record in away(minutes)[:10]:
            run.feed(record)
        before = time.process_time()
        run.feed(away(minutes)[10])
        spent.append(time.process_time() - before)
    assert spent[1] < 3 * spent[0] + 0.05


def test_a_long_silence_parts_what_is_said_before_and_behind_it() -> None:
    log = away(14)
    out = play(session(), log)
    spoken = [o for o in out if isinstance(o, FinalTranscript) and not o.silent]
    assert len(spoken) == 3
    assert spoken[0].speech_start_sample < RATE
    assert spoken[1].speech_start_sample >= 14 * 60 * RATE
    assert gaps(out) == []
    killed_everywhere(log, SessionConfig())


# Through a lane


def lane(*, lost: bool = False) -> LaneMemory:
    sessions = RealSessions(SessionConfig(), PORTS)
    return LaneMemory(Source(Latency.LIVE, 0), sessions, SavedLane(), position=0, epoch=0, silence_ms=0, lost=lost)


def as_record(offset: int, record: AudioRecord, run: str = KEY.run) -> ConsumerRecord:
    extra = {"received": str(record.received_ms)}
    content = "application/json"
    if record.kind in (Type.CHUNK, Type.GAP):
        extra |= {"sequence": sequence(record.sequence), "firstsample": str(record.first_sample)}
    if record.kind is Type.CHUNK:
        content = pcm_type(record.rate, record.channels)
    headers = event_headers(record.kind, id="x", source="x", run=run, content_type=content, extra=extra)
    return ConsumerRecord(
        LIVE.name, 0, offset, record.timestamp_ms, 1, b"default/call", body_of(record), None, 0, 0, tuple(headers)
    )


def body_of(record: AudioRecord) -> bytes:
    """The body that ``record`` was read from."""
    said: BaseModel | None = record.said
    if record.reason and record.kind is Type.GAP:
        at, number = record.first_sample, record.sequence
        said = Gap(
            run=KEY.run, first_sequence=number, last_sequence=number, first_sample=at, samples=0, reason=record.reason
        )
    elif record.reason:
        said = StreamRefused(reason=record.reason)
    return said.model_dump_json().encode() if said else record.body


def take(memory: LaneMemory, record: ConsumerRecord) -> list[object]:
    """Take a record, decode and commit: transcripts typed, dead letters as their reasons."""
    memory.take(record, parse(record, Latency.LIVE))
    while wanted := list(memory.wants(record.timestamp)):
        for key, want in wanted:
            memory.apply(key, want.window_id, spell(memory.begin(key, want.window_id)), record.timestamp)
    draft = memory.draft(record.timestamp + 10**9)
    memory.committed()
    out: list[object] = []
    for message in draft.messages if draft else ():
        reason = text_headers(message.headers).get("errors.reason")
        out += [reason] if reason else [t for t in [typed(message.headers, message.value)] if t is not None]
    return out


def test_a_live_run_that_is_delivered_again_leaves_no_dead_letters() -> None:
    """Its agent was killed before it acknowledged what it had delivered, or lost its partition."""
    whole = [started(), *stream()]
    memory = lane()
    out = [o for n, r in enumerate([started(), *whole]) for o in take(memory, as_record(n, r))]
    assert [o for o in out if isinstance(o, str)] == []
    again = [o for n, r in enumerate(whole) for o in take(memory, as_record(100 + n, r))]
    assert again == []
    next_run = f"{KEY.run[:-1]}0"
    begun = later(started(), 60_000)
    assert take(memory, as_record(200, begun, next_run)) == []
    assert [o for n, r in enumerate(whole) for o in take(memory, as_record(300 + n, r))] == []
    other = later(whole[5], 90_000)
    assert take(memory, as_record(400, other)) == ["run_closed"], "it was received behind all that the run took"


def test_what_a_superseded_run_took_may_come_again() -> None:
    memory, whole = lane(), [started(), *stream()[:12]]
    for n, record in enumerate(whole):
        take(memory, as_record(n, record))
    take(memory, as_record(50, later(started(), 5000), f"{KEY.run[:-1]}0"))
    again = [o for n, r in enumerate(whole) for o in take(memory, as_record(100 + n, r))]
    assert [o for o in again if isinstance(o, str)] == []


def test_an_idle_cut_that_tells_nothing_is_saved_before_the_offset_passes_it() -> None:
    memory = lane()
    # Behind a final comes a click that is no speech: the cut drops it.
    pcm = babble([(0.5, False), (1.0, True), (0.9, False), (0.1, True), (0.1, False)], RATE)
    frames = records(pcm, repeat(1600), RATE, ended=False)
    *first, last = [as_record(n, record) for n, record in enumerate(frames)]
    for record in first:
        memory.take(record, parse(record, Latency.LIVE))
    assert any(isinstance(o, FinalTranscript) for o in take(memory, last))
    memory.tick(last.timestamp + 20_000)
    after = memory.draft(last.timestamp + 10**9 + 20_000)
    assert after is not None
    [saved] = [m for m in after.messages if m.topic.startswith("transcripts.state")]
    assert int(text_headers(saved.headers)["ce_settled"]) == after.offset > len(frames) // 2
