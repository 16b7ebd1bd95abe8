"""A window that the model fails on is tried again alone, and in the end leaves an empty final and a gap (promise 1)."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, repeat

import numpy as np
import pytest

from kaption.domain.decoding.port import Kind, Window
from kaption.domain.records import AudioRecord, Latency, Output
from kaption.domain.run.config import SessionConfig
from kaption.domain.run.segmenter import SegmentRules
from kaption.domain.run.session import Session
from kaption.domain.run.windows import MOST_FAILURES
from kaption.testing.voices import spell
from kaption_schemas.codec import encode_transcript
from kaption_schemas.headers import text_headers
from kaption_schemas.reasons import Reason
from kaption_schemas.records import AudioFormat, FinalTranscript, Gap, RunOptions, StreamCompleted, StreamStarted
from kaption_schemas.topics import Type
from tests.support.runs import KEY, START_MS, babble, finals, play, records, session

RATE = 16000
#: Files as live runs have their segments, so that there are several.
CONFIG = SessionConfig(prompt_seconds=0, file_rules=SegmentRules())
PCM = babble([(0.5, False), (1.5, True), (1.0, False), (1.0, True), (1.0, False), (1.2, True), (0.8, False)], RATE)
#: The middle segment is shouted.
PCM[3 * RATE : 4 * RATE] *= 3
Fails = Callable[[Window], bool]


def stream() -> list[AudioRecord]:
    return records(PCM, repeat(1600), RATE)


def drive(run: Session, stream: list[AudioRecord], fails: Fails, *, hung: bool = False) -> tuple[list[Output], int]:
    """Feed a run and decode meanwhile, except for what ``fails``; return the outputs and the abandoned windows."""
    out, given_up = list[Output](), 0

    def decode(now_ms: int) -> None:
        nonlocal given_up
        for _ in range(20):
            for want in run.wants(now_ms):
                window = run.begin(want.window_id)
                if not fails(window):
                    out.extend(run.apply(want.window_id, spell(window), now_ms))
                elif (made := run.fail(want.window_id, hung=hung)) is not None:
                    given_up += 1
                    out.extend(made)

    for record in stream:
        out += run.feed(record)
        decode(record.timestamp_ms)
    return out, given_up


def texts(outputs: list[Output]) -> list[FinalTranscript]:
    return [o for o in outputs if isinstance(o, FinalTranscript)]


def shouted(window: Window) -> bool:
    """Whether it is a final of the middle segment."""
    return window.kind is Kind.FINAL and bool(np.abs(window.audio).max() > 0.6)


@pytest.mark.parametrize("hung", [False, True])
def test_what_fails_each_time_is_an_empty_final_and_a_gap_and_the_rest_is_as_it_was(*, hung: bool) -> None:
    good = play(session(config=CONFIG), stream())
    out, given_up = drive(session(config=CONFIG), stream(), shouted, hung=hung)
    assert given_up >= 1
    made = texts(out)
    assert [f.segment for f in made] == list(range(len(made)))
    assert all(before.end_sample == after.start_sample for before, after in pairwise(made))
    [empty] = [f for f in made if f.quality and f.quality.suppressed == "decode_failed"]
    assert (empty.text, empty.words, empty.silent) == ("", (), False)
    assert [o for o in finals(out) if o != empty.model_dump_json()] == [
        o for o, f in zip(finals(good), texts(good), strict=True) if f.segment != empty.segment
    ]
    [gap] = [o for o in out if isinstance(o, Gap)]
    assert (gap.first_sample, gap.samples) == (empty.start_sample, empty.end_sample - empty.start_sample)
    assert gap.first_sequence == empty.start_sample // 1600
    assert gap.last_sequence == (empty.end_sample - 1) // 1600
    assert gap.reason is Reason.DECODE_FAILED
    assert out.index(gap) == out.index(empty) - 1, "in one transaction"
    [done] = [o for o in out if isinstance(o, StreamCompleted)]
    assert (done.gaps, done.segments) == (1, len(made))


def test_it_is_given_up_at_the_fourth_failure_or_the_second_hang_and_alone_from_the_first_on() -> None:
    for hung, tries in ((False, MOST_FAILURES), (True, MOST_FAILURES // 2)):
        run = session(Latency.BATCH, CONFIG)
        for record in records(PCM[: int(2.9 * RATE)], repeat(1600), RATE, ended=False):
            run.feed(record)
        [want] = run.wants(0)
        assert not want.alone
        for _ in range(tries - 1):
            run.begin(want.window_id)
            assert run.fail(want.window_id, hung=hung) is None
            assert run.wants(0) == [replace(want, alone=True)]
        run.begin(want.window_id)
        assert [f.text for f in texts(run.fail(want.window_id, hung=hung) or [])] == [""]
        assert run.wants(0) == []


def test_who_succeeds_is_no_longer_alone() -> None:
    run = session(Latency.BATCH, CONFIG)
    for record in stream():
        run.feed(record)
    first, *_ = run.wants(0)
    run.begin(first.window_id)
    assert run.fail(first.window_id, hung=False) is None
    assert all(want.alone for want in run.wants(0))
    run.apply(first.window_id, spell(run.begin(first.window_id)), 0)
    assert [want.alone for want in run.wants(0)] == [False, False]


def test_gaps_that_begin_in_one_frame_have_ids_of_their_own() -> None:
    gap = Gap(
        run=KEY.run, first_sequence=3, last_sequence=3, first_sample=50_000, samples=500, reason=Reason.DECODE_FAILED
    )
    ids = [
        text_headers(encode_transcript(g, {}, split=False).headers)["ce_id"]
        for g in (gap, gap.model_copy(update={"first_sample": 50_500}))
    ]
    assert ids == [f"{KEY.run}/gap/0/3/50000", f"{KEY.run}/gap/0/3/50500"]


def test_a_window_that_succeeds_at_last_is_nothing_special() -> None:
    tries: dict[tuple[int, int], int] = {}

    def fails(window: Window) -> bool:
        key = (window.id, len(window.audio))
        tries[key] = tries.get(key, 0) + 1
        return window.kind is Kind.FINAL and tries[key] < MOST_FAILURES

    run = session(config=CONFIG)
    out, given_up = drive(run, stream(), fails)
    assert given_up == 0
    assert finals(out) == finals(play(session(config=CONFIG), stream()))
    assert not [o for o in out if isinstance(o, Gap)]


def test_a_partial_that_fails_is_not_shown_and_its_segment_gets_its_final() -> None:
    out, given_up = drive(session(config=CONFIG), stream(), lambda window: window.kind is Kind.PARTIAL)
    assert given_up >= 1
    assert finals(out) == finals(play(session(config=CONFIG), stream()))


def test_a_partial_that_hangs_is_not_tried_again() -> None:
    run, hangs = session(config=CONFIG), 0
    for record in records(babble([(6.0, True)], RATE), repeat(1600), RATE, ended=False):
        run.feed(record)
        for want in run.wants(record.timestamp_ms):
            run.begin(want.window_id)
            assert run.fail(want.window_id, hung=True) == []
            hangs += 1
    assert hangs == 1


@pytest.mark.parametrize("kinds", [{Kind.FINAL}, {Kind.PARTIAL, Kind.FINAL}])
def test_audio_on_which_the_model_always_hangs_costs_two_executors(kinds: set[Kind]) -> None:
    """The second hang ends the worker (`StuckError`): by then, the window that would hang the next one must be abandoned."""
    hangs = 0

    def shouted(window: Window) -> bool:
        nonlocal hangs
        hung = window.kind in kinds and bool(np.abs(window.audio).max() > 0.6)
        hangs += hung
        return hung

    out, _ = drive(session(config=CONFIG), stream(), shouted, hung=True)
    assert hangs == 2
    assert [f.quality.suppressed for f in texts(out) if f.quality and f.quality.suppressed] == ["decode_failed"]


def test_a_hang_that_is_noticed_when_its_segment_has_its_final_leaves_nothing_alone() -> None:
    """It takes half a minute to notice. With its batch it blames seven who did nothing."""
    run = session(config=CONFIG)
    stalled: int | None = None
    alone: list[bool] = []
    for number, record in enumerate(stream()):
        run.feed(record)
        if number == 45:
            assert stalled is not None
            run.fail(stalled, hung=True)
        for want in run.wants(record.timestamp_ms):
            window = run.begin(want.window_id)
            if stalled is None and want.kind is Kind.PARTIAL:
                stalled = want.window_id
            else:
                run.apply(want.window_id, spell(window), record.timestamp_ms)
            if number > 45:
                alone.append(want.alone)
    assert len(alone) > 2
    assert not any(alone[1:]), "the first that succeeds clears it"


def test_an_early_final_that_fails_is_wanted_again() -> None:
    run = session(config=CONFIG)
    pauses = iter(records(babble([(2.0, True), (1.0, False)], RATE), repeat(1600), RATE, ended=False))
    while not (early := [w for w in run.wants(0) if w.kind is Kind.FINAL]):
        run.feed(next(pauses))
    [want] = early
    run.begin(want.window_id)
    assert run.fail(want.window_id, hung=False) is None
    assert run.wants(0) == [replace(want, alone=True)]


def test_a_gap_of_each_channel_has_an_id_of_its_own() -> None:
    body = StreamStarted(format=AudioFormat(channels=2), options=RunOptions(channels="split", redaction=()))
    first = AudioRecord(Type.STARTED, KEY, 0, START_MS, START_MS, said=body)
    pcm = babble([(1.5, True), (1.0, False), (1.5, True), (1.0, False)], RATE, channels=2)
    frames = [replace(r, offset=r.offset + 1) for r in records(pcm, repeat(1600), RATE)]
    out, _ = drive(session(config=CONFIG), [first, *frames], lambda window: window.kind is Kind.FINAL)
    gaps = [o for o in out if isinstance(o, Gap)]
    assert [gap.channel for gap in gaps].count(1) == len(gaps) / 2 > 1
    ids = {text_headers(encode_transcript(gap, {}, split=True).headers)["ce_id"] for gap in gaps}
    assert len(ids) == len(gaps)
    [done, _] = [o for o in out if isinstance(o, StreamCompleted)]
    assert done.gaps == len(gaps)
