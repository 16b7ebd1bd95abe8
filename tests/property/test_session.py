"""However a run's audio is sliced, repeated, reordered or interrupted, its finals are the same (promise 4)."""

import random
from dataclasses import replace
from itertools import chain, repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaption.domain.decoding.port import Decoded, Kind, Window
from kaption.domain.records import AudioRecord, Latency, Output
from kaption.domain.run.config import SessionConfig
from kaption.domain.run.segmenter import SegmentRules
from kaption.domain.run.session import Session
from kaption.domain.run.windows import FILE_AHEAD_SECONDS, MOST_FAILURES
from kaption.testing.voices import spell
from kaption_schemas.audio import MAX_CHANNELS
from kaption_schemas.records import (
    AudioFormat,
    FinalTranscript,
    RunOptions,
    StreamCompleted,
    StreamStarted,
)
from kaption_schemas.topics import Type
from tests.support.runs import PORTS, START_MS, babble, decode_all, finals, play, records, session

# The second stretch is longer than the hard limit of the tests, so that cuts in the middle of speech are among them.
SHAPE = [(0.7, False), (1.6, True), (0.9, False), (4.1, True), (0.3, False), (0.8, True), (1.2, False), (1.0, True)]
RULES = SegmentRules(longest=60, quiet_search=20, silence=25)
CONFIG = SessionConfig(prompt_seconds=10, rules=RULES, file_rules=replace(RULES, join=100))
RATES = st.sampled_from([8000, 16000, 44100, 48000])


def whole(rate: int, latency: Latency = Latency.LIVE) -> list[str]:
    return finals(play(session(latency, CONFIG), records(babble(SHAPE, rate), repeat(rate), rate)))


@given(
    latency=st.sampled_from(Latency),
    rate=RATES,
    sizes=st.lists(st.integers(20, 1000), min_size=1, max_size=30),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_slicing_never_shows(latency: Latency, rate: int, sizes: list[int], seed: int) -> None:
    pieces = chain((ms * rate // 1000 for ms in sizes), repeat(rate // 10))
    run = session(latency, CONFIG)
    assert finals(play(run, records(babble(SHAPE, rate), pieces, rate), seed)) == whole(rate, latency)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_repeats_and_reordering_within_bounds_never_show(data: st.DataObject) -> None:
    rate = 16000
    stream = records(babble(SHAPE, rate), repeat(rate // 10), rate)
    frames, ended = stream[:-1], stream[-1]
    jitter = data.draw(st.lists(st.floats(0, 8), min_size=len(frames), max_size=len(frames)))
    twice = data.draw(st.lists(st.integers(0, len(frames) - 1), max_size=10))
    order = sorted([(i + jitter[i], i) for i in range(len(frames))] + [(i + 9.0, i) for i in twice])
    moved = [at_offset(frames[i], n, frames[min(n, len(frames) - 1)].timestamp_ms) for n, (_, i) in enumerate(order)]
    out = play(session(config=CONFIG), [*moved, at_offset(ended, len(moved), ended.timestamp_ms)])
    assert finals(out) == whole(rate)
    done = [o for o in out if isinstance(o, StreamCompleted)]
    assert [d.repeats for d in done] == [len(twice)]


@given(
    latency=st.sampled_from(Latency),
    rate=RATES,
    seed=st.integers(0, 999),
    crashes=st.sets(st.integers(30, 104), min_size=1, max_size=4),
)
@settings(max_examples=90, deadline=None)
def test_a_crash_at_any_record_neither_loses_nor_doubles(
    latency: Latency, rate: int, seed: int, crashes: set[int]
) -> None:
    """A lane's life: commit finals with snapshot and offset, die, restore, replay from the committed offset."""
    stream = records(babble(SHAPE, rate), repeat(rate // 10), rate)
    run = session(latency, CONFIG)
    saved, committed, position, restored = run.snapshot(), 0, 0, 0
    out = []
    pending = set(crashes)
    while position < len(stream):
        if position in pending:
            pending.discard(position)
            restored += bool(committed)
            run = Session.restore(saved, CONFIG, PORTS) if committed else session(latency, CONFIG)
            position = committed
            continue
        record = stream[position]
        position += 1
        made = run.feed(record)
        if (position + seed) % 7 == 0:
            made += decode_all(run, record.timestamp_ms)
        durable = [o for o in made if isinstance(o, FinalTranscript)]
        if durable:
            out += durable
            settled = run.settled_offset()
            committed = position if settled is None else settled
            saved = run.snapshot()
    out += [o for o in decode_all(run, stream[-1].timestamp_ms) if isinstance(o, FinalTranscript)]
    assert restored or not crashes - set(range(60)), "no crash came behind a commit"
    assert finals(out) == whole(rate, latency)


@pytest.mark.parametrize("latency", list(Latency))
def test_segments_are_contiguous_and_tile_the_run(latency: Latency) -> None:
    pcm = babble(SHAPE, 16000)
    texts = [
        o for o in play(session(latency, CONFIG), records(pcm, repeat(1600), 16000)) if isinstance(o, FinalTranscript)
    ]
    assert [t.segment for t in texts] == list(range(len(texts)))
    assert [t.start_sample for t in texts] == [0, *(t.end_sample for t in texts[:-1])]
    assert texts[-1].end_sample == len(pcm)


def at_offset(record: AudioRecord, offset: int, now: int) -> AudioRecord:
    return replace(record, offset=offset, timestamp_ms=now, received_ms=now + 60_000)


@given(
    data=st.data(), rate=RATES, shape=st.lists(st.tuples(st.floats(0.1, 1.5), st.booleans()), min_size=4, max_size=14)
)
@settings(max_examples=60, deadline=None)
def test_a_decode_that_begins_before_the_pause_is_over_never_shows(
    data: st.DataObject, rate: int, shape: list[tuple[float, bool]]
) -> None:
    """Results come records later, when the pause may be over, or the speech have gone on."""
    config = replace(CONFIG, prompt_seconds=data.draw(st.sampled_from([0, 1, 10])))
    stream = records(babble([(0.5, True), *shape], rate), repeat(rate // 10), rate)
    run, out, flying = session(config=config), list[Output](), list[tuple[int, int, Decoded]]()
    for number, record in enumerate(stream):
        out += run.feed(record)
        for want in run.wants(record.timestamp_ms):
            late = data.draw(st.integers(0, 8))
            flying.append((number + late, want.window_id, spell(run.begin(want.window_id))))
        for due, window_id, decoded in flying:
            if due <= number:
                out += run.apply(window_id, decoded, record.timestamp_ms)
        flying = [item for item in flying if item[0] > number]
    for _, window_id, decoded in flying:
        out += run.apply(window_id, decoded, stream[-1].timestamp_ms)
    out += decode_all(run, stream[-1].timestamp_ms)
    quiet = session(config=config)
    behind = [o for record in stream for o in quiet.feed(record)] + decode_all(quiet, stream[-1].timestamp_ms)
    assert finals(out) == finals(behind)


@given(data=st.data(), rate=RATES)
@settings(max_examples=40, deadline=None)
def test_failures_that_pass_never_show(data: st.DataObject, rate: int) -> None:
    """The model fails on any window up to three times, and each comes back in its time."""
    config = replace(CONFIG, prompt_seconds=data.draw(st.sampled_from([0, 10])))
    stream = records(babble(SHAPE, rate), repeat(rate // 10), rate)
    run, out, failures = session(config=config), list[Output](), dict[int, int]()
    for record in [*stream, *repeat(stream[-1], 30)]:
        out += run.feed(record)
        for want in run.wants(record.timestamp_ms):
            window = run.begin(want.window_id)
            count = failures.get(window.id, 0)
            if (window.kind is Kind.PARTIAL or count < MOST_FAILURES - 1) and data.draw(st.booleans()):
                failures[window.id] = count + 1
                run.fail(window.id, hung=False)
                continue
            out += run.apply(window.id, spell(window), record.timestamp_ms)
    quiet = session(config=config)
    assert finals(out) == finals(play(quiet, stream))
    assert [o.gaps for o in out if isinstance(o, StreamCompleted)] == [0]


@given(
    rate=st.sampled_from([8000, 16000]),
    stereo=st.booleans(),
    held=st.booleans(),
    joined=st.booleans(),
    lengths=st.lists(st.floats(0.5, 13), min_size=2, max_size=16),
    seed=st.integers(0, 999),
)
@settings(max_examples=15, deadline=None)
def test_a_file_is_decoded_no_further_ahead_than_a_crash_may_cost(
    rate: int, stereo: bool, held: bool, joined: bool, lengths: list[float], seed: int
) -> None:
    """In any order of results and commits, and the order shows in nothing. Finals that are held for their open end stop nothing."""
    channels, dice = 2 if stereo else 1, random.Random(seed)
    shape = list(chain.from_iterable(((0.9, False), (length, True)) for length in lengths))
    stream = records(babble(shape, rate, channels), repeat(rate * 10), rate)
    config = SessionConfig() if joined else SessionConfig(file_rules=SegmentRules())
    options = RunOptions(channels="split" if stereo else "mix", redaction=("NUMBER",) if held else ())

    def fed() -> Session:
        run = session(Latency.BATCH, config)
        body = StreamStarted(format=AudioFormat(rate=rate, channels=channels), options=options)
        run.feed(AudioRecord(Type.STARTED, run.key, -1, START_MS, START_MS, said=body))
        for record in stream:
            run.feed(record)
        return run

    run, ahead, flying = fed(), dict[int, float](), list[Window]()
    published, drafted = list[int](), list[int]()
    out: list[Output] = []

    def commit() -> None:
        run.committed()
        for window_id in drafted:
            ahead.pop(window_id, None)
        run.drafted()
        drafted[:] = published

    while not run.closed:
        wanted = run.wants(0)
        if not wanted and not flying:
            assert drafted != published or set(ahead) & set(drafted), "only a commit is waited for"
            commit()
            continue
        for want in dice.sample(wanted, dice.randint(int(not flying), len(wanted))):
            ahead[want.window_id] = want.seconds
            flying.append(run.begin(want.window_id))
        for channel in range(channels):
            own = [seconds for window, seconds in ahead.items() if window % MAX_CHANNELS == channel]
            assert held or sum(own) <= FILE_AHEAD_SECONDS / channels
        window = flying.pop(dice.randrange(len(flying)))
        made = run.apply(window.id, spell(window), 0)
        for final in made:
            if isinstance(final, FinalTranscript):
                published.append(final.channel + MAX_CHANNELS * (final.segment + 1))
        out += made
        if dice.random() < 0.3:
            commit()
    assert sorted(finals(out)) == sorted(finals(decode_all(fed(), 0)))
    assert joined or len(finals(out)) >= len(lengths)
