"""Metrics come out under their names and say what they are described as; a publisher's trace goes through; an error's text does not."""

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from kaption.adapters import telemetry
from kaption.adapters.settings import Settings
from kaption.adapters.telemetry import Telemetry, extract, inject
from kaption.domain.decoding.port import Kind, ModelInfo
from kaption.domain.pool.overload import Step
from kaption.domain.pool.plan import Candidate, overdue_seconds
from kaption.domain.records import Latency
from kaption_gpu.lanes.transactions import PartialsStats
from kaption_gpu.statistics import PoolMetrics

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = [("traceparent", f"00-{TRACE}-b7ad6b7169203331-01".encode()), ("tracestate", b"a=b")]


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def subject(spans: InMemorySpanExporter) -> Iterator[Telemetry]:
    made = Telemetry(Settings(), "test", spans=(SimpleSpanProcessor(spans),))
    yield made
    made.shutdown()


@pytest.mark.parametrize("metric", telemetry.METRICS, ids=lambda metric: metric.name)
def test_every_metric_has_its_declared_name(subject: Telemetry, metric: telemetry.Metric) -> None:
    subject.record(metric, 1, **dict.fromkeys(metric.labels, "x"))
    suffix = "_count" if metric.kind == "histogram" else ""
    assert any(line.startswith((f"{metric.name}{suffix}{{", f"{metric.name}{suffix} ")) for line in lines(subject))


def lines(subject: Telemetry) -> list[str]:
    return subject.prometheus().splitlines()


def test_a_label_that_is_not_declared_is_refused(subject: Telemetry) -> None:
    with pytest.raises(ValueError, match="asr_dlq_total has the labels"):
        subject.record(telemetry.DEAD_LETTERS, 1, stream="secret")


def test_buckets_are_those_of_the_table(subject: Telemetry) -> None:
    subject.record(telemetry.QUEUE_TIME, 0.12, model="tiny.en", kind="partial")
    text = subject.prometheus()
    assert 'le="0.15",model="tiny.en"} 1.0' in text
    assert 'le="0.1",model="tiny.en"} 0.0' in text


@pytest.fixture
def metrics(subject: Telemetry) -> PoolMetrics:
    return PoolMetrics(subject, ModelInfo("counting", "0", "test"), executors=1)


@pytest.mark.parametrize(
    ("step", "value"),
    [(Step.NOTHING, 0), (Step.PARTIALS_THINNED, 1), (Step.FILES_WAIT, 2), (Step.RUNS_REFUSED, 3)],
)
def test_the_overload_step_is_a_metric(subject: Telemetry, metrics: PoolMetrics, step: Step, value: int) -> None:
    tell = metrics.sinks().overload
    tell(Step.PARTIALS_THINNED)
    tell(step)
    assert f"kaption_overload_step {value}.0" in lines(subject)


def test_overdue_audio_is_that_of_windows_past_their_deadline(subject: Telemetry, metrics: PoolMetrics) -> None:
    early, due, late, waiting = (
        Candidate(n, 0, "a", Latency.LIVE, kind, seconds, overdue_s)
        for n, (kind, seconds, overdue_s) in enumerate(
            [(Kind.FINAL, 1, -0.3), (Kind.PARTIAL, 2, 0.0), (Kind.FINAL, 4, 3.0), (Kind.PARTIAL, 8, 0.1)]
        )
    )
    metrics.sinks().state(overdue_seconds([early, due, late, waiting]), PartialsStats(0, 0, 0), ())
    assert "asr_overdue_seconds 12.0" in lines(subject)


def test_a_publishers_trace_goes_on(subject: Telemetry, spans: InMemorySpanExporter) -> None:
    with (
        subject.span("process", "media.events.v1", parent=PARENT, partition=2, group="g"),
        subject.span("send", "audio.live.v1", count=1),
    ):
        sent = inject([("ce_id", b"1"), PARENT[0]])
    send, process = spans.get_finished_spans()
    assert [send.name, process.name] == ["send audio.live.v1", "process media.events.v1"]
    assert (send.kind, process.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert process.attributes is not None
    assert dict(process.attributes) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "media.events.v1",
        "messaging.destination.partition.id": "2",
        "messaging.consumer.group.name": "g",
    }
    assert send.context is not None
    assert [name for name, _ in sent].count("traceparent") == 1
    assert dict(sent)["traceparent"] == f"00-{TRACE}-{send.context.span_id:016x}-01".encode()
    assert "tracestate" not in dict(sent), "it holds whatever its writer likes"


def test_a_batch_links_its_records(subject: Telemetry, spans: InMemorySpanExporter) -> None:
    with subject.span("poll", "audio.live.v1", parent=[], links=[PARENT, [], [("traceparent", b"nonsense")]]):
        pass
    (poll,) = spans.get_finished_spans()
    assert [f"{link.context.trace_id:032x}" for link in poll.links] == [TRACE]


def test_of_an_error_only_the_type_is_noted(subject: Telemetry, spans: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="marzipan"), subject.span("commit", "audio.live.v1"):
        raise ValueError("marzipan")
    (span,) = spans.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "ValueError"
    assert "marzipan" not in span.to_json()


def test_without_a_span_headers_stay(subject: Telemetry) -> None:
    assert inject(PARENT) == PARENT
    assert not extract([("traceparent", None)])
