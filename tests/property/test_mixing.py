"""Two channels become one alike however they are sliced, and whenever a run is taken up again (promise 4)."""

from dataclasses import replace
from itertools import chain, cycle, repeat

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from kaption.domain.records import Latency
from kaption.domain.run.config import SessionConfig
from kaption.domain.run.mixing import Mixer
from kaption.domain.run.segmenter import SegmentRules
from kaption.domain.run.session import Session
from kaption_schemas.audio import RATES
from kaption_schemas.records import FinalTranscript
from tests.support.runs import PORTS, babble, decode_all, finals, play, records, session

Pcm = npt.NDArray[np.int16]
RULES = SegmentRules(longest=60, quiet_search=20, silence=25)
CONFIG = SessionConfig(prompt_seconds=10, rules=RULES, file_rules=replace(RULES, join=100))
#: Speech that repeatedly ends at the hard limit, within blocks.
SHAPE = [(0.4, False), (9.0, True), (1.2, False), (0.9, True)]


def mixed(pcm: Pcm, rate: int, sizes: list[int] | None = None) -> Pcm:
    mixer, out, at = Mixer(rate), list[Pcm](), 0
    for size in chain(sizes or [], repeat(len(pcm))):
        if at >= len(pcm):
            break
        out.append(mixer.feed(pcm[at : at + size], at)[0])
        at += size
    return np.concatenate([*out, mixer.flush()[0]])


def turned(rate: int) -> Pcm:
    """A voice on both channels, with the polarity of the second swapped or not every 25 ms, so that parts of a block are mixed otherwise."""
    one = babble(SHAPE, rate)
    dice = np.random.default_rng(7).choice(np.array([-1, 1], np.int16), len(one) * 40 // rate + 1)
    return np.hstack([one, one * dice[np.arange(len(one)) * 40 // rate][:, None]])


def test_a_swapped_polarity_loses_nothing_and_all_else_is_the_mean() -> None:
    voice, other = babble([(1.0, True)], 16_000), babble([(1.0, True)], 16_000, seed=2)
    assert np.array_equal(mixed(np.hstack([voice, -voice]), 16_000), voice[:, 0])
    for second in (voice, other, np.zeros_like(voice), voice // 2):
        pcm = np.hstack([voice, second])
        assert np.array_equal(mixed(pcm, 16_000), pcm.mean(axis=1).astype(np.int16))
    loudest = np.full((1000, 2), [32767, -32768], np.int16)
    assert set(mixed(loudest, 16_000).tolist()) == {32767}
    assert len(mixed(np.zeros((0, 2), np.int16), 16_000)) == 0


@given(rate=st.sampled_from(RATES), sizes=st.lists(st.integers(1, 5000), max_size=40))
@settings(max_examples=60, deadline=None)
def test_slicing_never_shows_in_a_mix(rate: int, sizes: list[int]) -> None:
    pcm = turned(rate)
    assert np.array_equal(mixed(pcm, rate, sizes), mixed(pcm, rate))


@given(
    latency=st.sampled_from(Latency),
    rate=st.sampled_from([8000, 11_025, 16_000, 44_100]),
    sizes=st.lists(st.integers(20, 60), min_size=1, max_size=9),
    crashes=st.sets(st.integers(60, 250), max_size=8),
)
@settings(max_examples=40, deadline=None)
def test_a_mixed_run_has_the_same_finals_sliced_and_taken_up_again(
    latency: Latency, rate: int, sizes: list[int], crashes: set[int]
) -> None:
    pcm = turned(rate)
    want = finals(play(session(latency, CONFIG), records(pcm, repeat(rate), rate)))
    stream = records(pcm, (ms * rate // 1000 for ms in cycle(sizes)), rate)
    run, saved, committed, position = session(latency, CONFIG), b"", 0, 0
    out, pending = list[FinalTranscript](), set(crashes)
    while position < len(stream):
        if position in pending:
            pending.discard(position)
            run, position = Session.restore(saved, CONFIG, PORTS) if saved else session(latency, CONFIG), committed
            continue
        record = stream[position]
        position += 1
        made = [*run.feed(record), *decode_all(run, record.timestamp_ms)]
        if durable := [o for o in made if isinstance(o, FinalTranscript)]:
            out += durable
            settled = run.settled_offset()
            committed, saved = position if settled is None else settled, run.snapshot()
    assert finals(out) == want
