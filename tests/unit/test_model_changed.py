"""A run goes on with the weights that it began with, or not at all (adr/0029)."""

from dataclasses import replace
from itertools import repeat

from kaption.domain.records import Refused
from kaption.domain.run.config import Ports
from kaption.domain.run.session import Session
from kaption.testing.voices import MODEL
from kaption_gpu.bootstrap import RealSessions
from kaption_schemas.reasons import Reason
from kaption_schemas.records import FinalTranscript, StreamCompleted
from kaption_schemas.topics import Type
from tests.support.lane_log import Committed, record, take
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
    assert [(type(o), getattr(o, "reason", None)) for o in refused] == [(Refused, Reason.RUN_CLOSED)] * len(rest)


def test_the_same_weights_or_a_snapshot_that_does_not_say_go_on() -> None:
    snapshot, _, _ = half_way()
    assert not Session.restore(snapshot, CONFIG, PORTS).ended
    former = snapshot.replace(b'"model":"' + b"0" * 64 + b'"', b'"model":""')
    assert former != snapshot
    assert not Session.restore(former, CONFIG, OTHER).ended


def test_what_the_run_took_is_dead_lettered_though_others_were_told_behind_it() -> None:
    """Another run's dead letter came after it. All before that counted as reported, and the reports of this run are no letter."""
    broker = Committed(sessions=RealSessions(CONFIG, PORTS))
    memory = broker.open(0)
    log = [record(number, "call", 1, Type.CHUNK, number, 0, samples=8000) for number in range(30)]
    log += [record(30, "cat", 2, Type.ENDED, -1, 0), record(31, "cat", 2, Type.CHUNK, 0, 7)]
    for item in log:
        take(memory, item)
    broker.commit(memory, 10_000)
    first = broker.offset
    assert 0 < first < 30
    letters = [f"run_closed@{offset}" for offset in range(first, 30)]
    for epoch, until in ((1, first + 3), (2, 32), (3, 32)):  # the first of these dies early
        broker.sessions = RealSessions(CONFIG, OTHER)
        again = broker.open(epoch)
        broker.commit(again, 20_000 * epoch)
        for item in log[again.position : until]:
            take(again, item)
        broker.commit(again, 20_001 * epoch)
    told = [output for output in broker.outputs if output.startswith("run_closed@") and not output.endswith("@31")]
    assert told == letters
