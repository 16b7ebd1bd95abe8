"""A run goes on with the weights that it began with, or not at all (adr/0029)."""

from dataclasses import replace
from itertools import repeat

from kaption.domain.records import DeadLetter
from kaption.domain.run.config import Ports
from kaption.domain.run.session import Session
from kaption.testing.voices import MODEL
from kaption_schemas.reasons import Reason
from kaption_schemas.records import FinalTranscript, StreamCompleted
from tests.support.runs import CONFIG, PORTS, START_MS, babble, play, records, session

RATE = 16_000
OTHER = Ports(PORTS.detector, PORTS.redactor, replace(MODEL, digest="1" * 64))


PCM = babble([(0.5, False)] + [(7.3, True), (1.0, False)] * 2, RATE)
FRAMES = records(PCM, repeat(1600), RATE, ended=False)


def half_way() -> tuple[bytes, int, list[FinalTranscript]]:
    """A run that was saved in mid-call: its snapshot, where a replay begins, and its finals so far."""
    run = session()
    finals = [o for o in play(run, FRAMES[:120]) if isinstance(o, FinalTranscript)]
    settled = run.settled_offset()
    assert settled is not None
    assert finals
    return run.snapshot(), settled, finals


def test_other_weights_close_it_and_say_why() -> None:
    snapshot, settled, finals = half_way()
    run = Session.restore(snapshot, CONFIG, OTHER)
    assert run.ended
    out = run.tick(START_MS + 12_000)
    [completed] = [o for o in out if isinstance(o, StreamCompleted)]
    assert (completed.reason, completed.segments, completed.samples) == (
        Reason.MODEL_CHANGED, len(finals), finals[-1].end_sample,
    )  # fmt: skip
    assert not [o for o in out if isinstance(o, FinalTranscript)]
    rest = FRAMES[settled:]
    refused = [o for record in rest for o in run.feed(replace(record, offset=record.offset + 100))]
    assert [(type(o), getattr(o, "reason", None)) for o in refused] == [(DeadLetter, Reason.RUN_CLOSED)] * len(rest)


def test_the_same_weights_or_a_snapshot_that_does_not_say_go_on() -> None:
    snapshot, _, _ = half_way()
    assert not Session.restore(snapshot, CONFIG, PORTS).ended
    former = snapshot.replace(b'"model":"' + b"0" * 64 + b'"', b'"model":""')
    assert former != snapshot
    assert not Session.restore(former, CONFIG, OTHER).ended
