"""What a run does with records that are wrong only in the light of the run: the code, the gap, and that it goes on."""

from dataclasses import replace
from itertools import pairwise, repeat

import pytest

from kaption.domain.decoding.port import Kind
from kaption.domain.records import AudioRecord, Latency, Output, Refused
from kaption.domain.run.session import Session
from kaption.testing.voices import spell
from kaption_schemas.reasons import Reason
from kaption_schemas.records import (
    MOST_SAMPLES,
    AudioFormat,
    FinalTranscript,
    Gap,
    PartialTranscript,
    RunOptions,
    StreamCompleted,
    StreamEnded,
    StreamStarted,
)
from kaption_schemas.topics import Type
from tests.support.runs import KEY, START_MS, babble, decode_all, finals, play, records, session

RATE = 16000
PCM = babble([(0.5, False), (1.5, True), (1.0, False), (1.0, True), (0.8, False)], RATE)


def stream() -> list[AudioRecord]:
    return records(PCM, repeat(1600), RATE)


def number(stream: list[AudioRecord]) -> list[AudioRecord]:
    """Offsets as a lane would give them."""
    return [replace(record, offset=offset) for offset, record in enumerate(stream)]


def reasons(outputs: list[Output]) -> list[Reason]:
    return [o.reason for o in outputs if isinstance(o, Refused)]


def gaps(outputs: list[Output]) -> list[tuple[int, int, int, int, Reason]]:
    return [
        (o.first_sequence, o.last_sequence, o.first_sample, o.samples, o.reason) for o in outputs if isinstance(o, Gap)
    ]


def started(**options: object) -> AudioRecord:
    body = StreamStarted(format=AudioFormat(), options=RunOptions(**options))  # type: ignore[arg-type]  # any option
    return AudioRecord(Type.STARTED, KEY, 0, START_MS, START_MS, said=body)


def completed(outputs: list[Output]) -> StreamCompleted:
    (done,) = [o for o in outputs if isinstance(o, StreamCompleted)]
    return done


def good() -> list[str]:
    return finals(play(session(), stream()))


def with_frame(index: int, **changes: object) -> list[AudioRecord]:
    """The stream with a changed copy of a frame put behind it."""
    whole = stream()
    return number([*whole[: index + 1], replace(whole[index], **changes), *whole[index + 1 :]])  # type: ignore[arg-type]


def test_same_sequence_with_other_bytes_is_a_conflict_and_nothing_else_changes() -> None:
    out = play(session(), with_frame(4, body=b"\1\0" * 1600))
    assert reasons(out) == [Reason.SEQUENCE_CONFLICT]
    assert finals(out) == good()


def test_an_exact_repeat_is_counted_only() -> None:
    out = play(session(), with_frame(4))
    assert reasons(out) == []
    assert completed(out).repeats == 1


def test_a_lost_frame_is_a_gap_and_comes_too_late_afterwards() -> None:
    whole = stream()
    out = play(session(), number([*whole[:6], *whole[7:40], whole[6], *whole[40:]]))
    assert gaps(out) == [(6, 6, 9600, 1600, Reason.LOST)]
    assert reasons(out) == [Reason.LATE]
    texts = [o for o in out if isinstance(o, FinalTranscript)]
    assert texts[-1].end_sample == len(PCM)


def test_a_gap_record_keeps_nobody_waiting() -> None:
    whole = stream()
    gap = whole[6].as_gap(Reason.ODD_BYTES)
    run = session()
    out: list[Output] = []
    for record in number([*whole[:6], gap, *whole[7:9]]):
        out += run.feed(record)
    assert run.next_sample == 9 * 1600
    out += play(run, [replace(r, offset=r.offset + 100) for r in whole[9:]])
    assert gaps(out) == [(6, 6, 9600, 1600, Reason.ODD_BYTES)]


def test_a_sequence_far_ahead_is_refused() -> None:
    out = play(session(), with_frame(4, sequence=10**9))
    assert reasons(out) == [Reason.SEQUENCE_AHEAD]
    assert finals(out) == good()


def test_samples_that_go_back_are_refused_and_leave_a_gap() -> None:
    whole = stream()
    whole[5] = replace(whole[5], first_sample=0)
    out = play(session(), whole)
    assert reasons(out) == [Reason.SAMPLES_OVERLAP]
    assert gaps(out) == [(5, 5, 5 * 1600, 1600, Reason.SAMPLES_OVERLAP)]


def test_samples_that_jump_beyond_the_clock_are_refused() -> None:
    whole = stream()
    whole[5] = replace(whole[5], first_sample=60 * RATE)
    out = play(session(), whole)
    assert reasons(out) == [Reason.SAMPLES_JUMP]
    assert completed(out).samples == len(PCM)


def test_silence_that_a_publisher_leaves_out_is_no_gap() -> None:
    whole = stream()
    later = [
        replace(
            r,
            first_sample=r.first_sample + 5 * RATE,
            timestamp_ms=r.timestamp_ms + 5000,
            received_ms=r.received_ms + 5000,
        )
        for r in whole[24:-1]
    ]
    out = play(session(), number([*whole[:24], *later, replace(whole[-1], timestamp_ms=whole[-1].timestamp_ms + 5000)]))
    assert gaps(out) == []
    assert completed(out).samples == len(PCM) + 5 * RATE


def test_a_live_run_faster_than_real_time_is_closed() -> None:
    pcm = babble([(1.0, True), (0.7, False)] * 30, RATE)
    fast = [replace(r, timestamp_ms=START_MS, received_ms=START_MS) for r in records(pcm, repeat(RATE), RATE)]
    out = play(session(), fast)
    assert reasons(out)[0] is Reason.FASTER_THAN_REALTIME
    assert set(reasons(out)[1:]) <= {Reason.RUN_CLOSED}
    assert completed(out).reason is Reason.FASTER_THAN_REALTIME
    assert reasons(play(session(Latency.BATCH), fast)) == []


def test_another_rate_is_refused_and_the_run_goes_on() -> None:
    whole = stream()
    whole[5] = replace(whole[5], rate=8000)
    out = play(session(), whole)
    assert reasons(out) == [Reason.FORMAT_CHANGED]
    assert gaps(out) == [(5, 5, 5 * 1600, 1600, Reason.FORMAT_CHANGED)]
    assert completed(out).samples == len(PCM)


@pytest.mark.parametrize("at", [1, 5])
def test_a_second_started_is_refused(at: int) -> None:
    whole = [started(), *stream()]
    out = play(session(), number([*whole[:at], started(language="en"), *whole[at:]]))
    assert reasons(out) == [Reason.ALREADY_STARTED]
    assert finals(out) == good()


def test_ended_first_twice_and_never() -> None:
    end = AudioRecord(Type.ENDED, KEY, 0, START_MS, START_MS, said=StreamEnded(last_sequence=-1))
    assert completed(play(session(), [end])).segments == 0
    assert reasons(play(session(), number([*stream(), stream()[-1]]))) == []
    never = session()
    out = play(never, stream()[:-1])
    last = stream()[-2].timestamp_ms
    assert not [o for o in out if isinstance(o, StreamCompleted)]
    out = never.tick(last + 901_000) + decode_all(never, last + 901_000)
    assert completed(out).reason is Reason.IDLE


def test_ended_before_its_last_frames_waits_for_them() -> None:
    whole = stream()
    run = session()
    out = play(run, number([*whole[:-4], whole[-1], *whole[-4:-1]]))
    assert finals(out) == good()
    early = StreamEnded(last_sequence=3)
    assert reasons(play(session(), number([*whole[:10], replace(whole[-1], said=early)]))) == [Reason.BAD_END]


def test_what_the_model_lacks_is_refused() -> None:
    out = play(session(), [started(language="fr"), *[replace(r, offset=r.offset + 1) for r in stream()]])
    assert reasons(out)[0] is Reason.UNSUPPORTED_LANGUAGE
    assert set(reasons(out)[1:]) == {Reason.RUN_CLOSED}
    assert reasons(play(session(), [started(task="translate")])) == [Reason.UNSUPPORTED_TASK]


def test_the_idle_timer_finalises_the_open_segment() -> None:
    run = session()
    for record in stream()[:15]:
        run.feed(record)
    assert not finals(decode_all(run, START_MS))
    late = START_MS + 40_000
    assert finals(run.tick(late) + decode_all(run, late))


def test_an_idle_cut_is_made_again_when_its_stretch_is_replayed() -> None:
    """The snapshot knows of records behind the hole, and begins before it."""
    speech = records(babble([(0.3, False), (3.0, True), (0.8, False)], RATE), repeat(1600), RATE)
    hole = [replace(r, timestamp_ms=r.timestamp_ms + 40_000 * (n > 15)) for n, r in enumerate(number(speech))]
    run = session()
    for record in hole:
        run.feed(record)
    again = Session.restore(run.snapshot(), run.config, run.ports)
    told = finals(decode_all(run, hole[-1].timestamp_ms))
    assert len(told) == 3, "two pieces of speech, and the quiet end"
    for record in hole:
        again.feed(record)
    assert finals(decode_all(again, hole[-1].timestamp_ms)) == told


@pytest.mark.parametrize("latency", list(Latency))
def test_what_was_quiet_before_the_first_waiting_segment_is_no_backlog(latency: Latency) -> None:
    """A lane that stops reading when a run holds this much would wait without end for what it does not read."""
    run = session(latency)
    quiet = [part for _ in range(12) for part in ((9.0, False),)]
    pcm = babble([(0.5, False), (1.5, True), *quiet, (2.0, True), (1.0, False)], RATE)
    stream = records(pcm, repeat(RATE * 30), RATE, ended=False)
    for record in stream[:1]:
        run.feed(record)
    [first] = [w for w in run.wants(0) if w.kind is Kind.FINAL]
    for record in stream[1:]:
        run.feed(record)
    assert run.backlog_seconds() == pytest.approx(112, abs=1)
    run.apply(first.window_id, spell(run.begin(first.window_id)), 0)
    assert run.backlog_seconds() < 12, "silence is dealt with every ten seconds"


def test_channels_of_a_split_call_are_runs_of_their_own() -> None:
    stereo = babble([(0.5, False), (1.5, True), (1.0, False)], RATE, channels=2)
    stereo[:, 1] = 0
    frames = [replace(r, offset=r.offset + 1) for r in records(stereo, repeat(1600), RATE)]
    first = started(channels="split")
    body = StreamStarted(format=AudioFormat(channels=2), options=RunOptions(channels="split"))
    out = play(session(), [replace(first, said=body), *frames])
    texts = [o for o in out if isinstance(o, FinalTranscript)]
    assert [t.silent for t in texts if t.channel == 1] == [True]
    assert next(t.silent for t in texts if t.channel == 0) is False
    assert {t.channels for t in texts} == {2}
    for channel in (0, 1):
        assert [t.segment for t in texts if t.channel == channel] == list(
            range(sum(t.channel == channel for t in texts))
        )


def test_partials_grow_and_stable_text_never_changes() -> None:
    out = play(session(), stream())
    partials = [o for o in out if isinstance(o, PartialTranscript)]
    assert partials
    for before, after in pairwise(partials):
        if before.segment == after.segment:
            assert after.revision > before.revision
            assert after.text.startswith(before.text[: before.stable])


def test_restoring_a_closed_run_refuses_everything() -> None:
    run = session()
    play(run, stream())
    again = Session.restore(run.snapshot(), run.config, run.ports)
    assert again.closed
    other = replace(stream()[3], offset=999, received_ms=stream()[-1].received_ms + 1)
    assert reasons(again.feed(other)) == [Reason.RUN_CLOSED]


def test_an_agent_that_publishes_a_file_again_leaves_no_dead_letters() -> None:
    """It was killed before it acknowledged the object; its successor's records are the same, while the run is open and after."""
    whole = [started(), *stream()]
    whole = number(whole)
    once = finals(play(session(Latency.BATCH), whole))
    for cut in (1, 20, len(whole) - 1, len(whole)):
        run = session(Latency.BATCH)
        out = play(run, number([*whole[:cut], *whole]))
        assert (reasons(out), finals(out)) == ([], once)
        assert completed(out).repeats == len([r for r in whole[:cut] if r.kind is not Type.ENDED]) or cut == len(whole)
    late = replace(stream()[3], offset=999, sequence=500)
    assert reasons(run.feed(late)) == [Reason.RUN_CLOSED]


def test_what_the_log_lost_is_a_gap_of_its_own_reason() -> None:
    whole = number(stream())
    run = session()
    out = play(run, whole[:30])
    assert finals(out)
    again = Session.restore(run.snapshot(), run.config, run.ports)
    again.note_loss()
    out = play(again, [*whole[33:36], *whole[38:]])
    out += again.tick(START_MS + 60_000) + decode_all(again, START_MS + 60_000)
    [retention, lost] = gaps(out)
    assert (retention[1], retention[4]) == (32, Reason.RETENTION)
    assert (lost[0], lost[1], lost[4]) == (36, 37, Reason.LOST)


def test_a_frame_that_ends_behind_the_last_sample_that_a_run_may_have_is_refused_wherever_it_may_lie() -> None:
    """Behind what retention took a frame may lie anywhere, but a final could not say where it ends."""
    run = session()
    run.note_loss()
    far = replace(stream()[6], offset=0, first_sample=MOST_SAMPLES - 100)
    out = run.feed(far) + run.tick(START_MS + 60_000) + decode_all(run, START_MS + 60_000)
    assert reasons(out) == [Reason.SAMPLES_JUMP]


def test_a_gap_of_a_closed_run_is_told_by_its_own_dead_letter() -> None:
    whole = stream()
    run = session()
    play(run, whole)
    gap = replace(whole[15], offset=999).as_gap(Reason.ODD_BYTES)
    assert run.feed(gap) == []


def test_a_refusal_that_comes_to_light_at_the_end_is_not_lost() -> None:
    whole = stream()
    back = replace(whole[20], first_sample=0)
    # Frame 19 never comes, so 20 waits for it until the run is superseded, and only then turns out to go back.
    run = session()
    out: list[Output] = []
    for record in number([*whole[:19], back]):
        out += run.feed(record)
    assert reasons(out) == []
    run.close(Reason.SUPERSEDED, START_MS + 10_000)
    out = run.tick(START_MS + 10_000) + decode_all(run, START_MS + 10_000)
    assert reasons(out) == [Reason.SAMPLES_OVERLAP]
    assert completed(out).reason is Reason.SUPERSEDED


def test_a_gap_before_an_idle_cut_is_told_by_the_session_that_goes_on() -> None:
    whole = stream()
    gap = whole[15].as_gap(Reason.ODD_BYTES)
    run = session()
    for record in number([*whole[:15], gap]):
        run.feed(record)
    late = whole[15].timestamp_ms + 40_000
    assert finals(run.tick(late) + decode_all(run, late))
    assert run.settled_offset() == 14, "the cut lies within the frame before the gap"
    again = Session.restore(run.snapshot(), run.config, run.ports)
    rest = [
        replace(r, offset=r.offset + 100, timestamp_ms=late, received_ms=late) for r in [whole[14], gap, *whole[16:]]
    ]
    out = play(again, rest)
    assert [(g[0], g[4]) for g in gaps(out)] == [(15, Reason.ODD_BYTES)]


@pytest.mark.parametrize(
    ("said", "reason"), [("aborted", Reason.ABORTED), ("ended", Reason.ENDED), ("hung up", Reason.ENDED)]
)
def test_a_run_that_its_publisher_gave_up_is_completed_as_that(said: str, reason: Reason) -> None:
    *frames, end = stream()
    assert isinstance(end.said, StreamEnded)
    body = end.said.model_copy(update={"reason": said})
    outputs = play(session(), [*frames, replace(end, said=body)])
    assert [o.reason for o in outputs if isinstance(o, StreamCompleted)] == [reason]
