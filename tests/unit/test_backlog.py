"""Tests a run that waits long for its decodes: the windows that it offers, and their reported waits."""

from itertools import repeat

from kaption.domain.decoding.port import Kind
from kaption.domain.records import Latency
from kaption.domain.run.config import SessionConfig
from kaption.domain.run.windows import LIVE_AHEAD
from kaption.testing.voices import spell
from kaption_schemas.records import FinalTranscript
from tests.support.runs import babble, decode_all, records, session

RATE = 16000


def test_it_offers_as_many_finals_as_a_batch_has_the_oldest_first() -> None:
    pcm = babble([(1.0, True), (1.0, False)] * 20, RATE)
    run = session(config=SessionConfig())
    now = 0
    for record in records(pcm, repeat(1600), RATE):
        run.feed(record)
        now = record.timestamp_ms
    finals = [wanted for wanted in run.wants(now) if wanted.kind is Kind.FINAL]
    assert len(finals) == LIVE_AHEAD
    waits = [wanted.overdue_s for wanted in finals]
    assert waits == sorted(waits, reverse=True)
    assert waits[0] > 30
    out = decode_all(run, now)
    assert len([o for o in out if isinstance(o, FinalTranscript) and not o.silent]) == 20, "all come in the end"


def test_a_files_segment_waits_since_its_turn_has_come() -> None:
    """Not since it was published: else a short file would wait for the end of a long one."""
    run = session(Latency.BATCH)
    stream = records(babble([(14.0, True), (1.0, False)] * 6, RATE), repeat(16_000), RATE)
    for record in stream:
        run.feed(record)
    begin = stream[-1].timestamp_ms + 600_000
    first = {wanted.window_id: wanted.overdue_s for wanted in run.wants(begin)}
    assert 0 < len(first) < 6, "no more than a minute is given out"
    assert set(first.values()) == {0.0}
    done = min(first)
    run.apply(done, spell(run.begin(done)), begin)
    run.drafted()
    run.committed()
    later = {wanted.window_id: wanted.overdue_s for wanted in run.wants(begin + 5000)}
    assert {later[window_id] for window_id in first if window_id != done} == {5.0}
    assert {later[window_id] for window_id in later.keys() - first.keys()} == {0.0}
    assert later.keys() - first.keys()
