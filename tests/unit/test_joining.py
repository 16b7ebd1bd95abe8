"""A file's segments are joined over short pauses; a live run's are not."""

from itertools import repeat

import pytest

from kaption.domain.decoding.port import VAD_FRAME
from kaption.domain.records import Latency
from kaption.domain.run.segmenter import Cut, Joiner, SegmentRules
from kaption_schemas.records import FinalTranscript
from tests.support.runs import babble, play, records, session

RATE = 16000
RULES = SegmentRules(join=100, join_pause=20)


def cut(start: int | None, end: int, speech_end: int | None = None) -> Cut:
    """In frames."""
    last = end if speech_end is None else speech_end
    return Cut(None if start is None else start * VAD_FRAME, end * VAD_FRAME, last * VAD_FRAME)


def joined(*cuts: Cut) -> list[Cut]:
    joiner = Joiner(RULES)
    return [decided for one in cuts for decided in joiner.take(one)] + joiner.flush()


def test_what_fits_becomes_one() -> None:
    assert joined(cut(5, 40, 30), cut(45, 80, 70), cut(85, 110, 105)) == [cut(5, 110, 105)]


def test_what_does_not_fit_begins_the_next() -> None:
    assert joined(cut(5, 40, 30), cut(45, 115, 106), cut(120, 150, 140)) == [cut(5, 40, 30), cut(45, 150, 140)]


def test_a_long_pause_parts() -> None:
    assert joined(cut(5, 40, 30), cut(51, 80, 70)) == [cut(5, 40, 30), cut(51, 80, 70)]


@pytest.mark.parametrize(("silence", "together"), [(50, True), (51, False)])
def test_a_piece_without_speech_moves_the_end_while_it_is_short(silence: int, together: bool) -> None:
    found = joined(cut(5, 40, 30), cut(None, silence))
    assert found == ([cut(5, 50, 30)] if together else [cut(5, 40, 30), cut(None, 51)])


def test_a_live_run_decides_at_once() -> None:
    joiner = Joiner(SegmentRules())
    assert joiner.take(cut(5, 40, 30)) == [cut(5, 40, 30)]
    assert (joiner.start, joiner.flush()) == (None, [])


def test_a_file_has_fewer_and_longer_segments_that_tile_it() -> None:
    pcm = babble([(0.5, False), *[(2.0, True), (0.9, False)] * 8, (4.0, False), (2.0, True)], RATE)
    found = {
        latency: [o for o in play(session(latency), records(pcm, repeat(1600), RATE)) if isinstance(o, FinalTranscript)]
        for latency in Latency
    }
    assert [len(found[latency]) for latency in (Latency.LIVE, Latency.BATCH)] == [9, 3]
    assert not any(final.silent for final in found[Latency.BATCH]), "what was kept back at the end was heard"
    ends = [final.end_sample for final in found[Latency.BATCH]]
    assert [final.start_sample for final in found[Latency.BATCH]] == [0, *ends[:-1]]
    assert ends[-1] == len(pcm)
    assert {final.end_sample for final in found[Latency.LIVE]} >= set(ends)
