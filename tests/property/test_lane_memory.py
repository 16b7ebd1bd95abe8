"""A lane that is lost at any moment and begun again writes what an undisturbed one writes, and nothing twice."""

from dataclasses import replace

import pytest
from aiokafka.structs import ConsumerRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from kaption.domain.decoding.port import Kind
from kaption.domain.records import Latency
from kaption.domain.run.config import Wanted
from kaption.testing.sessions import REFUSED, CountingSessions
from kaption_gpu.lanes.data import SavedLane, Source
from kaption_gpu.lanes.memory import GONE_SECONDS, LaneMemory
from kaption_schemas.reasons import Reason
from kaption_schemas.topics import Type
from tests.support.lane_log import BACKEND, Committed, decode, record, take

STREAMS = ("a", "b")


WHATS = st.sampled_from(["chunk"] * 12 + ["refused", "end", "new", "stray", "broken"])
LOGS = st.lists(st.tuples(st.sampled_from(STREAMS), WHATS, st.integers(1, 50)), min_size=5, max_size=60)


def build(plan: list[tuple[str, str, int]]) -> list[ConsumerRecord]:
    """A partition's log: two streams whose runs follow each other, with refused and stray records."""
    out: list[ConsumerRecord] = []
    runs = {stream: [index] for index, stream in enumerate(STREAMS)}
    numbers: dict[int, int] = {}
    for stream, what, loud in plan:
        if what == "new":
            runs[stream].append(sum(map(len, runs.values())))
        run = runs[stream][0 if what == "stray" else -1]
        number = numbers.get(run, 0)
        kind = Type.ENDED if what == "end" else Type.CHUNK
        value = REFUSED if what == "refused" else loud
        made = record(len(out), stream, run, kind, number - 1 if kind is Type.ENDED else number, value)
        numbers[run] = number + (kind is Type.CHUNK)
        out.append(made if what != "broken" else replace(made, headers=()))
    return out


def play(log: list[ConsumerRecord], steps: list[str]) -> list[str]:
    """Run a lane over ``log``; ``steps`` say what happens between two records, and may lose the lane."""
    broker, now = Committed(), 10_000
    memory, crashes, at = broker.open(0), 0, 0
    while True:
        step = steps[at % len(steps)] if steps else "read"
        at += 1
        now += 10
        if step == "crash" and crashes < 6:
            crashes += 1
            memory = broker.open(crashes)
        elif step == "commit":
            broker.commit(memory, now)
        elif step == "decode":
            decode(memory, 1)
        elif memory.position < len(log):
            take(memory, log[memory.position])
        else:
            break
    for later in range(len(STREAMS) + len(log)):  # a run waits until the one before it is committed
        decode(memory)
        broker.commit(memory, now + 100 * (later + 1))
    return sorted(broker.outputs)


@settings(max_examples=150, deadline=None)
@given(LOGS, st.lists(st.sampled_from(["read", "read", "read", "decode", "commit", "crash"]), min_size=1, max_size=40))
def test_a_lane_that_crashes_writes_what_an_undisturbed_one_writes(
    plan: list[tuple[str, str, int]], steps: list[str]
) -> None:
    log = build(plan)
    calm = play(log, [])
    assert len(set(calm)) == len(calm)
    assert play(log, [*steps, "read"]) == calm


@settings(max_examples=50, deadline=None)
@given(LOGS)
def test_every_record_ends_somewhere(plan: list[tuple[str, str, int]]) -> None:
    log = build(plan)
    broker = Committed()
    memory = broker.open(0)
    for item in log:
        take(memory, item)
    decode(memory)
    broker.commit(memory, 100_000)
    letters = {int(line.split("@")[1]) for line in broker.outputs if "@" in line}
    open_from = broker.offset
    broken = {item.offset for item in log if not item.headers}
    assert broken <= letters
    # All that is behind the committed offset is in a closed segment, refused, or a no-op.
    assert open_from <= len(log)


def test_a_closed_files_records_are_repeats_when_its_agent_publishes_them_again() -> None:
    log = [record(n, "a", 1, Type.CHUNK, n, 7) for n in range(2)] + [record(2, "a", 1, Type.ENDED, 1, 0)]
    again = [replace(item, offset=3 + item.offset) for item in log]
    stray = record(6, "a", 1, Type.CHUNK, 2, 7)
    broker = Committed()
    memory = broker.open(0, latency=Latency.BATCH)
    for item in log:
        take(memory, item)
    decode(memory)
    draft = memory.draft(1)
    assert draft is not None
    broker.write(draft)
    for item in again:
        take(memory, item)
    after = memory.draft(2)
    assert after is not None
    assert after.stats.repeats == 2
    # The next owner knows of the closed run by its snapshot's marks; what the run never took is dead-lettered.
    memory = broker.open(1, latency=Latency.BATCH)
    for item in [*again, stray]:
        take(memory, item)
    broker.commit(memory, 3)
    assert [output for output in broker.outputs if "@" in output] == ["run_closed@6"]


def test_the_last_finals_of_a_live_run_are_as_urgent_as_a_files_once_they_are_late() -> None:
    late, later = (Wanted(0, Kind.FINAL, 1.0, GONE_SECONDS + more) for more in (0, 1))
    for latency in Latency:
        memory = Committed().open(0, latency=latency)
        for number in range(8):
            take(memory, record(number, "a", 1, Type.CHUNK, number, 7))
        key, _ = next(memory.wants(0))
        assert memory.urgency(key, later) is latency, "its audio goes on"
        take(memory, record(8, "a", 1, Type.ENDED, 7, 0))
        assert memory.urgency(key, late) is latency
        assert memory.urgency(key, later) is Latency.BATCH
        take(memory, record(9, "a", 2, Type.CHUNK, 0, 7))
        assert memory.urgency(key, later) is latency, "the stream goes on with a run that waits for it"
        take(memory, record(10, "a", 2, Type.ENDED, 0, 0))
        assert memory.urgency(key, later) is Latency.BATCH, "and that is over, too"


@pytest.mark.parametrize(("latency", "most"), [(Latency.BATCH, 600), (Latency.LIVE, 4800)])
@pytest.mark.parametrize("streams", [300, 1])
def test_many_short_runs_are_not_all_read_before_they_are_decoded(latency: Latency, most: float, streams: int) -> None:
    broker = Committed()
    memory = broker.open(0, latency=latency)
    log = [
        record(2 * n + ended, f"s{n % streams}", n, Type.ENDED if ended else Type.CHUNK, 0, 7, samples=30 * 16_000)
        for n in range(300)
        for ended in range(2)
    ]

    def read() -> None:
        while memory.position < len(log) and memory.has_room():
            take(memory, log[memory.position])

    read()
    assert most <= memory.backlog_seconds() <= most + 30
    for _ in range(300):
        key, window = next((k, w) for k, w in memory.wants(0) if w.kind is Kind.FINAL)
        begun = memory.begin(key, window.window_id)
        read()  # nothing else of a single stream waits now
        memory.apply(key, window.window_id, BACKEND.transcribe([begun])[0], 0)
        read()
        broker.commit(memory, memory.position)
        read()
        assert memory.backlog_seconds() <= most + 30
    assert sum('"reason":' in output for output in broker.outputs) == 300


def test_runs_that_all_wait_for_more_are_read_on() -> None:
    memory = Committed().open(0, latency=Latency.BATCH)
    for number in range(2700):
        assert memory.has_room(), f"{memory.backlog_seconds()} s are held, and nothing could be decoded"
        take(memory, record(number, f"s{number // 3}", 1, Type.CHUNK, number % 3, 7))
    assert memory.backlog_seconds() == 675


def test_finals_that_a_full_lane_waits_for_are_as_urgent_as_ever() -> None:
    memory = Committed().open(0)
    late = Wanted(0, Kind.FINAL, 1.0, GONE_SECONDS + 1)
    for number in range(40):
        take(memory, record(2 * number, f"s{number}", 1, Type.CHUNK, 0, 7, samples=300 * 16_000))
        take(memory, record(2 * number + 1, f"s{number}", 1, Type.ENDED, 0, 0))
        key, _ = next(memory.wants(0))
        room = memory.has_room()
        assert memory.urgency(key, late) is (Latency.BATCH if room else Latency.LIVE)
    assert not memory.has_room()


def test_whoever_asks_for_a_new_run_is_asked_about_with_the_runs_that_are_open() -> None:
    asked: list[tuple[str, dict[str, int]]] = []

    def refusal(tenant: str, here: int, *, new: bool) -> Reason | None:
        asked.append((tenant, dict(memory.runs_by_tenant())))
        return None

    memory = LaneMemory(
        Source(Latency.LIVE, 0),
        CountingSessions(),
        SavedLane(),
        position=0,
        epoch=0,
        silence_ms=0,
        refusal=refusal,
    )
    for number, tenant in enumerate(("acme", "acme", "default")):
        item = record(number, f"s{number}", 1, Type.CHUNK, 0, 7)
        take(memory, replace(item, key=f"{tenant}/s{number}".encode()))
    assert asked == [("acme", {"acme": 1}), ("acme", {"acme": 2}), ("default", {"acme": 2, "default": 1})]


def test_how_late_reading_is_counts_from_the_first_record() -> None:
    memory = Committed().open(0)
    assert memory.reading_late(1_700_000_000_000) == 0, "nothing is known yet"
    take(memory, record(0, "a", 1, Type.CHUNK, 0, 7))
    assert memory.reading_late(4000) == 3.0


def test_a_full_pool_turns_a_new_run_away_and_a_replay_repeats_it() -> None:
    first = [record(n, "a", 1, Type.CHUNK, n, 7) for n in range(2)]
    refused = [record(2 + n, "b", 2, Type.CHUNK, n, 7) for n in range(2)]
    later = [
        record(4, "b", 2, Type.CHUNK, 2, 7),
        record(5, "b", 2, Type.ENDED, 2, 0),
        record(6, "b", 3, Type.CHUNK, 0, 7),
    ]
    broker = Committed()
    memory = broker.open(0)
    for item in first:
        take(memory, item)
    broker.commit(memory, 1)
    assert broker.offset == 0, "the accepted run has no snapshot yet"
    full = broker.open(1, admits=False, claimed_ms=refused[0].timestamp)
    for item in [*first, *refused]:
        take(full, item)
    assert full.open_runs == 2, "what was accepted goes on, and the refusal waits for its transaction"
    broker.commit(full, 2)
    outputs = [output.split()[0] for output in broker.outputs if "@" in output]
    assert outputs == ["overloaded@2", "run_closed@3"]
    [completed] = [output for output in broker.outputs if '"overloaded"' in output]
    assert '"segments":0' in completed
    # Whoever comes next takes runs again, but not that one.
    after = broker.open(2)
    for item in [*first, *refused, *later]:
        if item.offset >= broker.offset:
            take(after, item)
    broker.commit(after, 3)
    outputs = [output.split()[0] for output in broker.outputs if "@" in output]
    assert outputs == ["overloaded@2", "run_closed@3", "run_closed@4"]
    assert after.open_runs == 2


def _superseded() -> list[ConsumerRecord]:
    """A run that has a segment and nothing behind it, and the run that takes its stream over, with its end."""
    first = [record(n, "a", 1, Type.CHUNK, n, 7) for n in range(4)]
    second = [record(4 + n, "a", 2, Type.CHUNK, n, 9) for n in range(4)]
    return [*first, *second, record(8, "a", 2, Type.ENDED, 3, 0)]


def test_a_run_goes_out_after_the_run_before_it_on_its_stream() -> None:
    broker = Committed()
    memory = broker.open(0)
    for item in [*_superseded(), record(9, "b", 3, Type.CHUNK, 0, 7)]:
        take(memory, item)
    assert {key.run[-2:] for key, _ in memory.wants(0)} == {"01", "03"}, "the second run of `a` waits, `b` does not"
    decode(memory)
    assert {key.run[-2:] for key, _ in memory.wants(0)} == {"03"}, "until the first is closed and committed"
    broker.commit(memory, 1)
    decode(memory)
    broker.commit(memory, 2)
    reasons = [
        reason for output in broker.outputs for reason in ("superseded", "ended") if f'"reason":"{reason}"' in output
    ]
    assert reasons == ["superseded", "ended"]
    assert memory.open_runs == 1
