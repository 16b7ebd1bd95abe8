"""A live run that nobody has decoded for long."""

from itertools import repeat

from kaption.domain.decoding import Kind
from kaption.domain.run import SessionConfig
from kaption.domain.windows import LIVE_AHEAD
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
