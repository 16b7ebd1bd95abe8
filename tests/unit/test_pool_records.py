"""What the pool makes of records that this version would not write: one record's matter each time, and never a weaker policy."""

from dataclasses import replace
from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord

from kaption.adapters.store.s3 import normalised_key
from kaption.domain.records import AudioRecord, Latency, Output, RunKey
from kaption.domain.run.session import Session
from kaption_gpu.bootstrap import RealSessions
from kaption_gpu.lanes.records import parse
from kaption_schemas.errors import RefusedError
from kaption_schemas.headers import event_headers, pcm_type, sequence
from kaption_schemas.reasons import Reason
from kaption_schemas.records import DataRef
from kaption_schemas.topics import BATCH, LIVE, Type
from tests.support.lane_log import Committed, record, take
from tests.support.runs import CONFIG, PORTS

RUN = "01J00000000000000000000001"
FILE = RunKey("acme", "film", RUN)


def inner(kind: Type, body: bytes, offset: int = 0, **extra: str) -> ConsumerRecord:
    extra = {"received": "1", "sequence": sequence(0), "firstsample": "0"} | extra
    headers = tuple(event_headers(kind, id="x", source="x", run=RUN, extra=extra))
    return ConsumerRecord(LIVE.name, 0, offset, 1000, 1, b"default/call", body, None, 0, 0, headers)


def reference(**fields: Any) -> ConsumerRecord:
    extra = {"samples": "16000", "format": pcm_type(16_000, 1)} | {
        k: fields.pop(k) for k in ("samples", "format") if k in fields
    }
    ref = DataRef(**({"bucket": "kaption", "key": normalised_key(FILE), "offset": 0, "length": 32_000} | fields))
    item = inner(Type.CHUNK, ref.model_dump_json().encode(), **extra)
    return replace(item, topic=BATCH.name, key=b"acme/film")


def outcome(log: list[ConsumerRecord]) -> list[str]:
    """What a lane with real sessions commits of it: dead letters and ends of runs."""
    broker = Committed(sessions=RealSessions(CONFIG, PORTS))
    memory = broker.open(0)
    for item in log:
        take(memory, item)
    broker.commit(memory, 10_000)
    again = broker.open(1)
    for item in log[broker.offset :]:
        take(again, item)
    broker.commit(again, 20_000)
    return [o if "@" in o else o.partition('"reason":"')[2].partition('"')[0] for o in broker.outputs]


@pytest.mark.parametrize(
    "body", [b'{"options":{"language":"en","diarise":true}}', b"{", b'{"options":{"redaction":"ALL"}}']
)
def test_a_start_that_is_not_understood_whole_closes_its_run(body: bytes) -> None:
    """Its frames would go on under the deployment's policy, which may redact less than what it asks for."""
    frames = [record(1 + number, "call", 1, Type.CHUNK, number, 7) for number in range(3)]
    assert sorted(outcome([inner(Type.STARTED, body), *frames])) == [
        "invalid_body", "invalid_body@0", "run_closed@1", "run_closed@2", "run_closed@3",
    ]  # fmt: skip


def test_a_second_start_that_is_not_understood_leaves_the_run_alone() -> None:
    log = [
        record(0, "call", 1, Type.STARTED, 0, 0),
        inner(Type.STARTED, b"{", 1),
        record(2, "call", 1, Type.ENDED, -1, 0),
    ]
    assert outcome(log) == ["ended", "invalid_body@1"]


def test_what_a_newer_version_says_of_a_gap_or_an_end_is_read() -> None:
    gap = b'{"run":"x","first_sequence":0,"last_sequence":0,"first_sample":0,"samples":0,"reason":"frame_too_quiet"}'
    end = b'{"last_sequence":0,"reason":"ended","mood":"good"}'
    assert outcome([inner(Type.GAP, gap), inner(Type.ENDED, end, 1)]) == ["unknown_reason", "ended"]
    assert outcome([inner(Type.GAP, b"{}"), inner(Type.ENDED, b"{}", 1)]) == ["invalid_body@0", "invalid_body@1"]


def test_a_record_that_a_session_fails_on_is_one_dead_letter() -> None:
    class Fragile(Session):
        def feed(self, record: AudioRecord) -> list[Output]:
            if record.offset == 1:
                raise ZeroDivisionError
            return super().feed(record)

    class Sessions(RealSessions):
        def new(self, key: RunKey, latency: Latency) -> Session:
            return Fragile(key, latency, CONFIG, PORTS)

    broker = Committed(sessions=Sessions(CONFIG, PORTS))
    memory = broker.open(0)
    for number in range(3):
        take(memory, record(number, "call", 1, Type.CHUNK, number, 7))
    assert memory.faults == ["ZeroDivisionError"]
    broker.commit(memory, 10_000)
    assert broker.outputs == ["internal_error@1"]


def test_a_snapshot_with_one_option_more_is_read() -> None:
    snapshot = Session(RunKey("default", "call", RUN), Latency.LIVE, CONFIG, PORTS).snapshot()
    newer = snapshot.replace(b'"options":{', b'"options":{"diarise":true,', 1)
    assert newer != snapshot
    assert Session.restore(newer, CONFIG, PORTS).snapshot() == snapshot


def test_a_reference_names_its_own_runs_audio_and_no_more_of_it_than_one_would() -> None:
    assert parse(reference(), Latency.BATCH, "kaption").ref is not None
    others: list[dict[str, Any]] = [
        {"bucket": "media"},
        {"key": normalised_key(FILE._replace(tenant="globex"))},
        {"key": normalised_key(FILE._replace(stream="other"))},
        {"key": normalised_key(FILE._replace(run="01J00000000000000000000002"))},
        {"key": "globex/film.wav"},
    ]
    for fields in others:
        with pytest.raises(RefusedError) as refused:
            parse(reference(**fields), Latency.BATCH, "kaption")
        assert refused.value.reason is Reason.OUTSIDE_PREFIX
    wrong: list[tuple[dict[str, Any], Reason]] = [
        ({"length": 2**62}, Reason.INVALID_BODY),
        ({"length": 32_002}, Reason.INVALID_BODY),
        ({"offset": -2}, Reason.INVALID_BODY),
        ({"samples": "9600000", "length": 19_200_000}, Reason.INVALID_BODY),
        ({"samples": "0", "length": 0}, Reason.INVALID_BODY),
        ({"format": pcm_type(7, 1)}, Reason.UNSUPPORTED_FORMAT),
        ({"format": pcm_type(10**9, 1)}, Reason.UNSUPPORTED_FORMAT),
    ]
    for fields, reason in wrong:
        with pytest.raises(RefusedError) as refused:
            parse(reference(**fields), Latency.BATCH, "kaption")
        assert refused.value.reason is reason
