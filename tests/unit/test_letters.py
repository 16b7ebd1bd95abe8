"""Dead letters of a lane: each once, however many there are, and however long another run keeps the offset back."""

import json
from collections import Counter
from dataclasses import replace

from aiokafka.structs import ConsumerRecord

from kaption.domain.records import Latency
from kaption.testing.sessions import REFUSED
from kaption_gpu.bootstrap import RealSessions
from kaption_gpu.lanes.letters import MOST_WAITING, MOST_WAITING_BYTES, Letters, Told
from kaption_gpu.lanes.memory import LaneMemory
from kaption_gpu.lanes.records import parse
from kaption_schemas.codec import encode_lane
from kaption_schemas.headers import text_headers
from kaption_schemas.topics import MIB, Type
from tests.support.lane_log import Committed, decode, record, take
from tests.support.runs import CONFIG, PORTS

LANE = b"audio.live.v1/0"


def read(broker: Committed, log: list[ConsumerRecord], memory: LaneMemory, now: int) -> int:
    """Let ``memory`` read to the end of ``log``, with a transaction whenever it is full; the largest record of the lane."""
    largest = 0
    while memory.position < len(log):
        if memory.has_room():
            take(memory, log[memory.position])
            continue
        now += 1
        broker.commit(memory, now)
        largest = max(largest, len(broker.state.get(LANE, (b"",))[0]))
    while memory.has_pending():
        now += 1
        broker.commit(memory, now)
        largest = max(largest, len(broker.state.get(LANE, (b"",))[0]))
    return largest


def refused(broker: Committed) -> Counter[str]:
    return Counter(output for output in broker.outputs if "@" in output)


def test_a_closed_run_that_goes_on_for_hours_fits_into_the_lanes_record() -> None:
    """An open call keeps the offset back meanwhile; its frames and another's lie between, so that nothing lies in rows."""
    broker = Committed()
    memory = broker.open(0)
    log = [record(0, "call", 1, Type.CHUNK, 0, 7), record(1, "cat", 2, Type.ENDED, -1, 0)]
    for number in range(12_000):
        log.append(record(len(log), "cat", 2, Type.CHUNK, number, 7, samples=320))
        log.append(record(len(log), "talk", 3, Type.CHUNK, number, REFUSED, samples=320))
    assert read(broker, log, memory, 10_000) < 40_000, "what waits for its transaction is named, no more"
    assert broker.offset == 0, "the call's first frame has no final yet"
    assert len(refused(broker)) == 24_000
    assert set(refused(broker).values()) == {1}
    again = broker.open(1)
    read(broker, log, again, 20_000)
    assert set(refused(broker).values()) == {1}, "the next owner writes none a second time"
    assert len(refused(broker)) == 24_000


def test_what_was_undecided_when_others_were_told_gets_its_letter_from_the_next_owner() -> None:
    broker = Committed(sessions=RealSessions(CONFIG, PORTS))
    memory = broker.open(0)
    log = [
        record(0, "a", 1, Type.CHUNK, 0, 7),
        replace(record(1, "a", 1, Type.CHUNK, 2, 7), value=b"\x01\x00" * 4000),  # waits for the one before it
        record(2, "b", 2, Type.ENDED, -1, 0),
        record(3, "b", 2, Type.CHUNK, 0, 7),
        record(4, "a", 1, Type.CHUNK, 1, 7, samples=8000),  # reaches into the one that waited
    ]
    for item in log[:4]:
        take(memory, item)
    broker.commit(memory, 10_000)
    take(memory, log[4])
    assert [*refused(broker)] == ["run_closed@3"]
    told = Told.read(broker.state[LANE][0])
    assert (told.holds(0), told.holds(1), told.holds(3), told.holds(4)) == (True, False, True, False)
    again = broker.open(1)
    for item in log[broker.offset :]:
        take(again, item)
    broker.commit(again, 20_000)
    assert refused(broker) == {"run_closed@3": 1, "samples_overlap@1": 1}


def test_a_lane_that_has_many_letters_to_write_reads_on_when_they_are_out() -> None:
    memory = Committed().open(0)
    broken = replace(record(0, "a", 1, Type.CHUNK, 0, 7), headers=())
    for offset in range(MOST_WAITING):
        assert memory.has_room()
        take(memory, replace(broken, offset=offset))
    assert not memory.has_room()
    draft = memory.draft(1)
    assert draft is not None
    assert draft.offset == len(draft.stats.dead_letters), "no letter that waits is passed by the offset"
    assert memory.has_room()
    assert memory.has_pending()


def test_a_lane_whose_letters_are_large_is_not_read_on_before_they_are_out() -> None:
    memory = Committed().open(0)
    broken = replace(record(0, "a", 1, Type.CHUNK, 0, 7), headers=(), value=bytes(MIB))
    for offset in range(MOST_WAITING_BYTES // MIB):
        assert memory.has_room()
        take(memory, replace(broken, offset=offset))
    assert not memory.has_room()
    while memory.has_pending():
        assert memory.draft(1)
        assert memory.has_room()


def test_what_still_waited_for_its_letter_when_its_run_was_saved_gets_it_from_the_next_owner() -> None:
    """A transaction takes a thousand letters, and 8 MiB. What a run's snapshot covers is not refused again by the next owner."""
    broker = Committed(sessions=RealSessions(CONFIG, PORTS))
    memory = broker.open(0)
    log = [record(number, "a", 1, Type.CHUNK, number, 0, samples=8000) for number in range(30)]
    log += [record(offset, "a", 1, Type.CHUNK, 29, 7, samples=8000) for offset in range(30, 1530)]
    log.append(record(1530, "a", 1, Type.ENDED, 29, 0))
    for item in log:
        take(memory, item)
    broker.commit(memory, 10_000)
    assert 0 < len(refused(broker)) <= 1000
    again = broker.open(1)
    read(broker, log, again, 20_000)
    assert refused(broker) == {f"sequence_conflict@{offset}": 1 for offset in range(30, 1530)}


def test_however_many_are_undecided_the_record_stays_small_and_tells_too_little_rather_than_too_much() -> None:
    mark = Letters(Told()).mark(0, 10**12, range(10**12 - 200_000, 10**12))
    assert len(mark.value()) < MIB // 2
    assert not any(mark.holds(at) for at in range(10**12 - 200_000, 10**12))
    assert mark.holds(10**12 - 200_001)


def test_what_a_former_version_wrote_is_read() -> None:
    old = json.dumps({"dead_lettered": {"7": "late", "9": "audio_unavailable", "11": "from_the_future"}}).encode()
    told = Told.read(old)
    assert [at for at in range(20) if told.holds(at)] == [7, 9, 11]
    assert told.unavailable == {9}
    spread = Told(50, frozenset({3}), frozenset({9, 10, 11, 20}))
    assert Told.read(encode_lane("x", spread.value()).value or b"") == spread


def test_a_waiting_runs_letters_do_not_wait_for_the_run_before_it() -> None:
    broker = Committed()
    memory = broker.open(0)
    log = [record(n, "a", 1, Type.CHUNK, n, 7) for n in range(4)]
    log += [record(4, "a", 2, Type.CHUNK, 0, REFUSED), record(5, "a", 2, Type.CHUNK, 1, 7)]
    for item in log:
        take(memory, item)
    broker.commit(memory, 1)
    assert [*refused(broker)] == ["late@4"]
    again = broker.open(1)
    for item in log[broker.offset :]:
        take(again, item)
    decode(again)
    broker.commit(again, 2)
    decode(again)
    broker.commit(again, 3)
    assert refused(broker) == {"late@4": 1}


def test_a_chunk_that_was_given_up_says_after_how_many_tries_and_is_not_asked_for_again() -> None:
    broker = Committed()
    memory = broker.open(0, latency=Latency.BATCH)
    log = [record(number, "a", 1, Type.CHUNK, number, 7) for number in range(2)]
    take(memory, log[0])
    memory.take_unavailable(log[1], parse(log[1], Latency.LIVE), attempts=20)
    draft = memory.draft(1)
    assert draft is not None
    [letter] = [head for m in draft.messages if "errors.reason" in (head := text_headers(m.headers))]
    assert (letter["errors.reason"], letter["errors.attempt"]) == ("audio_unavailable", "20")
    broker.write(draft)
    assert broker.offset == 0
    again = broker.open(1, latency=Latency.BATCH)
    assert [again.gave_up(at) for at in range(3)] == [False, True, False]
    take(again, log[0])
    again.take_unavailable(log[1], parse(log[1], Latency.LIVE))
    after = again.draft(2)
    assert after is None or after.stats.dead_letters == ()


def test_a_chunk_that_is_not_to_be_had_since_its_run_is_over_is_refused_as_any_other() -> None:
    """It was asked for while the run was open; its audio was deleted when the run was done."""
    broker = Committed()
    memory = broker.open(0, latency=Latency.BATCH)
    for item in (record(0, "a", 1, Type.ENDED, -1, 7), record(1, "b", 2, Type.CHUNK, 0, 7)):
        take(memory, item)
    broker.commit(memory, 1)
    assert memory.closed_runs == 1
    late = record(2, "a", 1, Type.CHUNK, 0, 7)
    memory.take_unavailable(late, parse(late, Latency.LIVE))
    broker.commit(memory, 2)
    assert refused(broker) == {"run_closed@2": 1}
