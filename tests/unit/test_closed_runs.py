"""For how long a lane remembers a run that is over, and what it makes of a log that was cut off."""

from dataclasses import replace

from kaption.domain.records import Latency
from kaption_gpu.lanes.closed_runs import keep_ms
from kaption_schemas.topics import Type
from tests.support.lane_log import Committed, decode, record, take

KEEP = keep_ms(Latency.LIVE)


def test_it_is_forgotten_when_the_log_no_longer_holds_its_audio() -> None:
    broker = Committed()
    memory = broker.open(0)
    take(memory, record(0, "a", 1, Type.ENDED, -1, 0))
    broker.commit(memory, 1)
    assert memory.closed_runs == 1
    memory.tick(1000 + KEEP)
    assert memory.closed_runs == 1
    take(memory, replace(record(1, "a", 1, Type.CHUNK, 0, 7), timestamp=5000))
    memory.tick(1001 + KEEP)
    assert memory.closed_runs == 1, "something came of it since"
    memory.tick(5001 + KEEP)
    assert memory.closed_runs == 0
    broker.commit(memory, 2)
    assert [o for o in broker.outputs if "@" in o] == ["run_closed@1"]


def test_what_a_cut_off_log_still_holds_of_a_delivered_run_is_covered_and_what_is_new_in_it_is_not() -> None:
    """As after an unclean election: 12 records were committed, and the log goes on at offset 6 with others."""
    broker = Committed()
    memory = broker.open(0)
    log = [record(number, "a", 1, Type.CHUNK, number, 7) for number in range(11)]
    log.append(record(11, "a", 1, Type.ENDED, 10, 0))
    for item in log:
        take(memory, item)
    for now in range(3):
        decode(memory)
        broker.commit(memory, now)
    assert broker.offset == 12
    broker.written_ms = 1100
    again = broker.open(1, cut_off=True, position=0)
    new = [replace(record(6 + number, "b", 2, Type.CHUNK, number, 7), timestamp=2000) for number in range(4)]
    new.append(replace(record(10, "a", 1, Type.CHUNK, 11, 7), timestamp=2000))
    new.append(replace(record(11, "b", 2, Type.ENDED, 3, 0), timestamp=2000))
    before = len(broker.outputs)
    broker.offset = 0
    for item in [*log[:6], *new]:
        take(again, item)
    for now in range(3):
        decode(again)
        broker.commit(again, 10_000 + now)
    told = broker.outputs[before:]
    assert [o for o in told if "@" in o] == ["run_closed@10"], "what was delivered is nobody's fault"
    assert sum('"segments":1' in o for o in told) == 1, "and the new run is transcribed"
