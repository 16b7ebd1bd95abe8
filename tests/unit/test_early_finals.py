"""A final's decode begins before its pause is over; it is the final's when the pause lasts, and a partial's text if not."""

from dataclasses import replace
from itertools import repeat

import pytest

from kaption.domain.decoding.port import Decoded, Kind
from kaption.domain.records import AudioRecord, Output
from kaption.domain.run.config import SessionConfig, Wanted
from kaption.domain.run.session import Session
from kaption.testing.voices import spell
from kaption_schemas.audio import MAX_CHANNELS
from kaption_schemas.records import FinalTranscript, PartialTranscript
from tests.support.runs import babble, decode_all, records, session

RATE = 16000
CONFIG = SessionConfig(prompt_seconds=0)


def feed_until_early(run: Session, frames: list[AudioRecord]) -> tuple[Wanted, list[AudioRecord]]:
    """Feed frames of 100 ms until a final is wanted; it, and the frames that are left."""
    for number, record in enumerate(frames):
        made = run.feed(record)
        assert not made
        for want in run.wants(record.timestamp_ms):
            if want.kind is Kind.FINAL:
                return want, frames[number + 1 :]
            run.abandon(want.window_id)
    raise AssertionError("no final was wanted early")


def finals(outputs: list[Output]) -> list[FinalTranscript]:
    return [o for o in outputs if isinstance(o, FinalTranscript)]


def test_the_final_comes_with_the_frame_that_ends_the_pause() -> None:
    run = session(config=CONFIG)
    want, rest = feed_until_early(run, records(babble([(2.0, True), (1.5, False)], RATE), repeat(1600), RATE))
    decoded = spell(run.begin(want.window_id))
    shown = run.apply(want.window_id, decoded, 0)
    assert [o.text for o in shown if isinstance(o, PartialTranscript)] == [decoded.text]
    for record in rest:
        if made := finals(run.feed(record)):
            assert made[0].text == decoded.text
            assert record.first_sample < 2.7 * RATE
            return
    raise AssertionError("the pause brought no final")


def test_a_result_that_comes_behind_the_cut_is_the_finals() -> None:
    run = session(config=CONFIG)
    want, rest = feed_until_early(run, records(babble([(2.0, True), (1.5, False)], RATE), repeat(1600), RATE))
    decoded = spell(run.begin(want.window_id))
    assert not [o for record in rest[:8] for o in run.feed(record)]
    assert not run.wants(0), "the same window is wanted twice"
    assert [f.text for f in finals(run.apply(want.window_id, decoded, 0))] == [decoded.text]


def test_speech_that_goes_on_makes_the_final_anew() -> None:
    run = session(config=CONFIG)
    shape = [(2.0, True), (0.4, False), (1.0, True), (1.5, False)]
    want, rest = feed_until_early(run, records(babble(shape, RATE), repeat(1600), RATE))
    decoded = spell(run.begin(want.window_id))
    for record in rest[:8]:
        run.feed(record)
    shown = run.apply(want.window_id, decoded, 0)
    assert [o.text for o in shown if isinstance(o, PartialTranscript)] == [decoded.text]
    out = [o for record in rest[8:] for o in run.feed(record)] + decode_all(run, 0)
    assert [f.text == decoded.text for f in finals(out) if not f.silent] == [False]


def test_a_final_that_is_prompted_begins_early_once_the_one_before_it_is_decoded() -> None:
    run = session(config=SessionConfig(prompt_seconds=10))
    shape = [(2.0, True), (1.5, False), (2.0, True), (0.35, False)]
    for record in records(babble(shape, RATE), repeat(1600), RATE, ended=False):
        run.feed(record)
    [first] = [want for want in run.wants(0) if want.kind is Kind.FINAL]
    decoded = spell(run.begin(first.window_id))
    assert not [want for want in run.wants(0) if want.kind is Kind.FINAL], "its prompt is not known yet"
    run.apply(first.window_id, decoded, 0)
    [second] = [want for want in run.wants(0) if want.kind is Kind.FINAL]
    assert run.begin(second.window_id).options.prompt == decoded.text


def test_it_is_due_when_the_pause_is_over_also_where_a_shorter_one_is_enough() -> None:
    for loud, least in ((2.0, -0.33), (8.0, -0.14)):
        run = session(config=CONFIG)
        want, _ = feed_until_early(run, records(babble([(loud, True), (1.5, False)], RATE), repeat(512), RATE))
        assert least < want.overdue_s <= 0


def until(run: Session, frames: list[AudioRecord], kind: Kind) -> tuple[int, list[AudioRecord]]:
    """Feed frames until a window of ``kind`` is wanted; its id, and the frames that are left."""
    for number, record in enumerate(frames):
        run.feed(record)
        for want in run.wants(record.timestamp_ms):
            if want.kind is kind:
                return want.window_id, frames[number + 1 :]
    raise AssertionError(f"no {kind} was wanted")


def test_what_an_older_decode_heard_does_not_replace_what_a_newer_one_did() -> None:
    """Both orders: a partial that an early final overtakes, and the other way round."""
    shape = [(2.0, True), (0.35, False), (1.5, True), (1.5, False)]
    frames = records(babble(shape, RATE), repeat(1600), RATE)
    for kinds in ((Kind.PARTIAL, Kind.FINAL), (Kind.FINAL, Kind.PARTIAL)):
        run, rest, begun = session(config=CONFIG), frames, list[tuple[int, str]]()
        for kind in kinds:
            window_id, rest = until(run, rest, kind)
            begun.append((window_id, spell(run.begin(window_id)).text))
        (older, old), (newer, new) = begun
        shown = [o for o in run.apply(newer, Decoded(new, "en", -0.2, 0.0, 1.0), 0) if isinstance(o, PartialTranscript)]
        assert [o.text for o in shown] == [new]
        assert run.apply(older, Decoded(old, "en", -0.2, 0.0, 1.0), 0) == []


# Audio that stops without an end


def stopped(run: Session, shape: list[tuple[float, bool]]) -> tuple[list[AudioRecord], list[Output]]:
    """Feed ``shape`` and decode meanwhile; no more audio follows."""
    frames = records(babble(shape, RATE), repeat(1600), RATE, ended=False)
    out = list[Output]()
    for record in frames:
        out += run.feed(record) + run.tick(record.timestamp_ms) + decode_all(run, record.timestamp_ms)
    return frames, out


def test_the_last_words_are_shown_soon_after_audio_stops_without_an_end() -> None:
    run = session(config=CONFIG)
    frames, _ = stopped(run, [(0.5, False), (2.05, True)])
    last = frames[-1].timestamp_ms
    assert not run.tick(last + 1000)
    assert not run.wants(last + 1000), "a frame may last a second"
    run.tick(last + 1300)
    [want] = run.wants(last + 1300)
    assert (want.kind, want.overdue_s) == (Kind.FINAL, 0), "it is due at once"
    window = run.begin(want.window_id)
    heard = len(window.audio) / RATE
    assert heard > 2.05 + 0.1, "all of it, and not only what made a step"
    [partial] = run.apply(want.window_id, spell(window), last + 1300)
    assert isinstance(partial, PartialTranscript)
    assert not run.wants(last + 2000)
    [final] = finals(run.tick(last + 8000))
    assert final.text == partial.text, "and that decode is the final's"


def test_audio_that_goes_on_makes_the_final_anew_and_alike() -> None:
    """A pause in the delivery shows in partials only, if it is shorter than what ends a segment."""
    frames = records(babble([(0.5, False), (2.0, True), (1.0, False)], RATE), repeat(1600), RATE)
    run, calm, out = session(config=CONFIG), session(config=CONFIG), list[Output]()
    for number, record in enumerate(frames):
        late = replace(record, timestamp_ms=record.timestamp_ms + 5000 * (number > 14))
        out += run.feed(late) + decode_all(run, late.timestamp_ms)
        if number == 14:
            out += run.tick(late.timestamp_ms + 2000) + decode_all(run, late.timestamp_ms)
    assert any(isinstance(o, PartialTranscript) for o in out)
    told = [o for record in frames for o in calm.feed(record)] + decode_all(calm, 0)
    assert [f.model_dump_json() for f in finals(out)] == [f.model_dump_json() for f in finals(told)]


def test_silence_is_not_decoded_when_audio_stops() -> None:
    run = session(config=CONFIG)
    frames, _ = stopped(run, [(1.5, False)])
    run.tick(frames[-1].timestamp_ms + 2000)
    assert not run.wants(frames[-1].timestamp_ms + 2000)


def test_a_window_that_is_not_wanted_is_not_begun() -> None:
    run = session(config=CONFIG)
    for record in records(babble([(0.5, False), (2.0, True), (1.5, False)], RATE), repeat(1600), RATE, ended=False):
        run.feed(record)
    [want] = run.wants(0)
    run.begin(want.window_id)
    for wrong in (
        want.window_id,
        want.window_id + MAX_CHANNELS,
        want.window_id + 5 * MAX_CHANNELS,
        want.window_id + 1,
        0,
    ):
        with pytest.raises(ValueError, match=r"window|nothing"):
            run.begin(wrong)
    assert finals(run.apply(want.window_id, Decoded("told", None, 0.0, 0.0, 0.0), 0))
    with pytest.raises(ValueError, match="waits"):
        run.begin(want.window_id)
