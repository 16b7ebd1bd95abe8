"""However many runs a publisher opens, a record costs what it costs with one, and the others' are taken (promise 7)."""

from collections import Counter
from typing import Any

from kaption.domain.records import AudioRecord, Latency, Output, RunKey
from kaption.domain.run.config import SessionConfig
from kaption.domain.run.session import Session
from kaption.testing.sessions import CountingSession, CountingSessions
from kaption_gpu.lanes.data import SavedLane, Source
from kaption_gpu.lanes.memory import LaneMemory
from kaption_schemas.headers import text_headers
from kaption_schemas.reasons import Reason
from kaption_schemas.records import StreamCompleted, StreamStarted
from kaption_schemas.topics import Type
from tests.support.lane_log import decode, record, take
from tests.support.runs import KEY, PORTS, START_MS

RUNS = 4000
CAP = 200


class Asked(CountingSession):
    """Counts how often its state is looked at."""

    looks = 0

    def backlog_seconds(self) -> float:
        Asked.looks += 1
        return super().backlog_seconds()

    def undecoded(self) -> bool:
        Asked.looks += 1
        return super().undecoded()


class AskedSessions(CountingSessions):
    def new(self, key: RunKey, latency: Latency) -> CountingSession:
        return Asked(key, latency)


def test_a_record_looks_at_its_own_run_and_no_other() -> None:
    memory = LaneMemory(Source(Latency.LIVE, 0), AskedSessions(), SavedLane(), position=0, epoch=0, silence_ms=0)
    Asked.looks = 0
    for number in range(RUNS):
        take(memory, record(number, f"s{number}", number, Type.STARTED, 0, 0))
        assert memory.has_room()
    assert Asked.looks <= 6 * RUNS
    assert memory.open_runs == RUNS
    assert memory.runs_by_tenant() == {"default": RUNS}


def test_a_tenant_that_only_starts_runs_gets_no_more_than_it_may_have_and_another_keeps_its_captions() -> None:
    open_runs = Counter[str]()

    def refusal(tenant: str, here: int, *, new: bool) -> Reason | None:
        assert (here, new) == (memory.runs_by_tenant()[tenant], True)
        open_runs[tenant] = max(open_runs[tenant], memory.runs_by_tenant()[tenant])
        return Reason.TOO_MANY_RUNS if memory.runs_by_tenant()[tenant] > CAP else None

    memory = LaneMemory(
        Source(Latency.LIVE, 0), CountingSessions(), SavedLane(), position=0, epoch=0, silence_ms=0, refusal=refusal
    )
    heads: list[dict[str, str]] = []
    largest = 0

    def commit(now: int) -> None:
        nonlocal largest
        if draft := memory.draft(now):
            heads.extend(text_headers(message.headers) for message in draft.messages)
            largest = max(largest, len(draft.messages))
            memory.committed()

    drafts = 0
    for number in range(3 * RUNS):
        if number == RUNS:
            for quiet in range(12):
                take(memory, record(number + quiet, "quiet", 1, Type.CHUNK, quiet, 7, tenant="globex"))
            decode(memory)
        while not memory.has_room():
            drafts += 1
            commit(drafts)
        take(memory, record(number + 12, f"s{number}", 10 + number, Type.STARTED, 0, 0, tenant="acme"))
    while memory.has_pending():
        drafts += 1
        commit(drafts)
    assert sum(head["ce_type"] == Type.FINAL for head in heads) == 3, "the quiet one's three seconds"
    assert largest < 4000, "a transaction stays within its time"
    refused = Counter(head["errors.reason"] for head in heads if "errors.reason" in head)
    assert refused == {"too_many_runs": 3 * RUNS - CAP}
    assert memory.runs_by_tenant() == {"acme": CAP, "globex": 1}


def test_what_a_new_owner_reads_again_is_bounded_by_what_the_last_one_can_have_taken() -> None:
    def refusal(tenant: str, here: int, *, new: bool) -> Reason | None:
        assert not new
        return Reason.TOO_MANY_RUNS if here > CAP else None

    saved = SavedLane(claimed_ms=10**12)
    memory = LaneMemory(
        Source(Latency.LIVE, 0), CountingSessions(), saved, position=0, epoch=0, silence_ms=0, refusal=refusal
    )
    for number in range(3 * CAP):
        take(memory, record(number, f"s{number}", number, Type.STARTED, 0, 0))
    assert memory.draft(1) is not None
    assert memory.runs_by_tenant() == {"default": CAP}


def started(at_ms: int) -> AudioRecord:
    return AudioRecord(Type.STARTED, KEY, 0, at_ms, at_ms, said=StreamStarted())


def completed(outputs: list[Output]) -> list[Any]:
    return [(o.reason, o.segments) for o in outputs if isinstance(o, StreamCompleted)]


def test_a_live_run_that_never_gets_a_frame_is_closed_after_two_minutes_in_a_replay_as_well() -> None:
    config = SessionConfig()
    for latency, closed in ((Latency.LIVE, [(Reason.IDLE, 0)]), (Latency.BATCH, [])):
        run = Session(KEY, latency, config, PORTS)
        run.feed(started(START_MS))
        assert completed(run.tick(START_MS + 119_000)) == []
        assert completed(run.tick(START_MS + 120_000)) == closed, latency
    frame = AudioRecord(
        Type.CHUNK, KEY, 1, START_MS + 121_000, START_MS + 121_000, 0, 121 * 16_000, 1600, body=bytes(3200)
    )
    replayed = Session(KEY, Latency.LIVE, config, PORTS)
    replayed.feed(started(START_MS))
    assert completed(replayed.feed(frame)) == [(Reason.IDLE, 0)], "whether anybody ticked meanwhile or not"
    heard = Session(KEY, Latency.LIVE, config, PORTS)
    heard.feed(started(START_MS))
    heard.feed(AudioRecord(Type.CHUNK, KEY, 1, START_MS, START_MS, 0, 0, 1600, body=bytes(3200)))
    assert completed(heard.tick(START_MS + 899_000)) == []
