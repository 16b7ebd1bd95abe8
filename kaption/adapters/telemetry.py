"""Declares every metric, span name and messaging attribute of Kaption, and records them.

Statistics arrive as numbers with labels; their sources decide what they mean. A label never names a stream, a run or a
word: ``record`` refuses labels that a metric does not declare. docs/operations.md is generated from ``METRICS``.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final as Const
from typing import Literal

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.metrics import Counter, Histogram, Meter
from opentelemetry.metrics import _Gauge as Gauge
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from kaption.adapters.settings import Settings
from kaption_schemas.codec import Headers, trace_of, with_trace

# Buckets are around the budget of each step in ms: frame 100, hop 10, step 400, queue 100, decode 150, publish 10.
_FAST: Const = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_QUEUE: Const = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
_DECODE: Const = (0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)
_CAPTION: Const = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0, 20.0, 60.0)
_SIZE: Const = (1.0, 2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0)
_FACTOR: Const = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name in Prometheus, its meaning, the labels that it may have, a histogram's buckets."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    description: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


QUEUE_TIME: Const = Metric(
    "asr_queue_time_seconds",
    "histogram",
    "Time from ready-to-decode until its batch starts.",
    ("model", "kind"),
    _QUEUE,
)
BATCH_SIZE: Const = Metric("asr_batch_size", "histogram", "Windows in a batch.", ("model", "kind"), _SIZE)
INFERENCE_DURATION: Const = Metric(
    "asr_inference_duration_seconds", "histogram", "One batch on the device.", ("model", "kind"), _DECODE
)
REAL_TIME_FACTOR: Const = Metric(
    "asr_real_time_factor", "histogram", "Device seconds an audio second of a batch.", ("model",), _FACTOR
)
TIME_TO_FIRST_PARTIAL: Const = Metric(
    "asr_time_to_first_partial_seconds",
    "histogram",
    "From a segment's first speech to its first partial.",
    ("model", "language"),
    _CAPTION,
)
FINAL_LATENCY: Const = Metric(
    "asr_final_latency_seconds", "histogram", "From the end of speech to the final.", ("model", "language"), _CAPTION
)
END_TO_END_LATENCY: Const = Metric(
    "asr_end_to_end_latency_seconds",
    "histogram",
    "From the broker's time of the newest audio to its transcript.",
    ("model", "topic"),
    _CAPTION,
)
PARTIAL_REVISIONS: Const = Metric("asr_partial_revisions_total", "counter", "Partials published.", ("model",))
PARTIALS_SHED: Const = Metric(
    "asr_partials_shed_total",
    "counter",
    "Partials made and not written, because the broker failed or was too slow. Load makes fewer: see `asr_queue_time_seconds`.",
    ("model",),
)
AUDIO_SECONDS: Const = Metric("asr_audio_seconds_total", "counter", "Audio that finals cover.", ("model", "topic"))
AUDIO_BACKLOG: Const = Metric(
    "asr_audio_backlog_seconds", "gauge", "Audio received that no final covers yet.", ("topic",)
)
FALLBACK: Const = Metric("asr_fallback_total", "counter", "Finals decoded again by other options.", ("model", "reason"))
HALLUCINATION_SUPPRESSED: Const = Metric(
    "asr_hallucination_suppressed_total", "counter", "Texts that a guard removed.", ("model", "reason")
)
DEAD_LETTERS: Const = Metric("asr_dlq_total", "counter", "Dead letters by reason code.", ("reason",))
FILE_AUDIO_SECONDS: Const = Metric(
    "kaption_file_audio_seconds_total", "counter", "Audio of files that were normalised.", ("tenant_class",)
)
FILE_WORK_SECONDS: Const = Metric(
    "kaption_file_work_seconds_total",
    "counter",
    "Time that files, also refused ones, held one of the `KAPTION_FILES_AT_ONCE` slots.",
    ("tenant_class",),
)
MODEL_INFO: Const = Metric("asr_model_info", "gauge", "1 for each model that is loaded.", ("alias", "digest"))
BACKEND_INFO: Const = Metric(
    "kaption_backend_info",
    "gauge",
    "1 for the encoder and decoder in use, and what they compute in.",
    ("backend", "precision"),
)
DEVICE_BUSY: Const = Metric("asr_device_busy_ratio", "gauge", "Share of time that the device computes: scale on this.")
OVERDUE: Const = Metric("asr_overdue_seconds", "gauge", "Audio in windows past their deadline: scale on this.")
OVERLOAD_STEP: Const = Metric(
    "kaption_overload_step",
    "gauge",
    "What overload sheds: 0 nothing, 1 partials, 2 files wait, 3 new live runs rejected.",
)
EXECUTORS_REPLACED: Const = Metric(
    "kaption_executors_replaced_total", "counter", "Executors whose batch raised (failed) or hung.", ("cause",)
)
WINDOWS_AGAIN: Const = Metric(
    "kaption_windows_again_total",
    "counter",
    "Windows requeued after their executor failed or hung: finals are decoded again, partials with new audio.",
    ("kind",),
)
WINDOWS_GIVEN_UP: Const = Metric(
    "kaption_windows_given_up_total",
    "counter",
    "Windows abandoned after the model failed each time; a final among them has no text and a gap `decode_failed`.",
    ("kind",),
)
SESSIONS: Const = Metric("asr_sessions", "gauge", "Open sessions.", ("topic",))
LANES: Const = Metric("kaption_lanes", "gauge", "Partitions that this worker is ready for.", ("topic",))
RECORDS: Const = Metric("kaption_records_total", "counter", "Records taken, by topic and type.", ("topic", "type"))
REPEATS: Const = Metric("kaption_repeats_total", "counter", "Exact repeats, counted and otherwise ignored.", ("topic",))
STAGE_DURATION: Const = Metric(
    "kaption_stage_duration_seconds", "histogram", "One record in the agent's stages.", ("stage",), _FAST
)
COMMIT_AGE: Const = Metric("kaption_commit_age_seconds", "gauge", "Since the last committed progress.", ("topic",))
READING_LATE: Const = Metric(
    "kaption_reading_late_seconds",
    "gauge",
    "How far the newest record read is behind the broker's clock, if the log has more.",
    ("topic",),
)
LEFT_OUT: Const = Metric(
    "kaption_records_left_out_total",
    "counter",
    "Records lost because their tenant's topics are missing, or closed to the service.",
    ("topic",),
)
TRANSACTIONS: Const = Metric(
    "kaption_transactions_total",
    "counter",
    "Transactions, committed or failed (after which their lane begins again).",
    ("topic", "outcome"),
)
RESTARTS: Const = Metric("kaption_restarts_total", "counter", "Child processes started again.", ("process",))

METRICS: Const = (
    QUEUE_TIME,
    BATCH_SIZE,
    INFERENCE_DURATION,
    REAL_TIME_FACTOR,
    TIME_TO_FIRST_PARTIAL,
    FINAL_LATENCY,
    END_TO_END_LATENCY,
    PARTIAL_REVISIONS,
    PARTIALS_SHED,
    AUDIO_SECONDS,
    AUDIO_BACKLOG,
    FALLBACK,
    HALLUCINATION_SUPPRESSED,
    DEAD_LETTERS,
    FILE_AUDIO_SECONDS,
    FILE_WORK_SECONDS,
    MODEL_INFO,
    BACKEND_INFO,
    DEVICE_BUSY,
    OVERDUE,
    OVERLOAD_STEP,
    EXECUTORS_REPLACED,
    WINDOWS_AGAIN,
    WINDOWS_GIVEN_UP,
    SESSIONS,
    LANES,
    RECORDS,
    REPEATS,
    STAGE_DURATION,
    COMMIT_AGE,
    READING_LATE,
    LEFT_OUT,
    TRANSACTIONS,
    RESTARTS,
)

# Names of OpenTelemetry's messaging conventions. They change between versions of the convention, so they are only here.
SYSTEM: Const = "messaging.system"
OPERATION_NAME: Const = "messaging.operation.name"
OPERATION_TYPE: Const = "messaging.operation.type"
DESTINATION: Const = "messaging.destination.name"
PARTITION: Const = "messaging.destination.partition.id"
GROUP: Const = "messaging.consumer.group.name"
BATCH_COUNT: Const = "messaging.batch.message_count"
ERROR_TYPE: Const = "error.type"

Operation = Literal["send", "poll", "process", "commit"]
_KINDS: Const[dict[str, tuple[SpanKind, str]]] = {
    "send": (SpanKind.PRODUCER, "send"),
    "poll": (SpanKind.CLIENT, "receive"),
    "process": (SpanKind.CONSUMER, "process"),
    "commit": (SpanKind.CLIENT, "settle"),
}
_PROPAGATOR: Const = TraceContextTextMapPropagator()


def extract(headers: Headers) -> Context:
    """Read the trace context of a record's headers; an empty one if it is missing or malformed."""
    return _PROPAGATOR.extract(trace_of(headers), context=Context())


def inject(headers: Headers) -> Headers:
    """Replace the trace context in ``headers`` by the current span's; outside a span return them unchanged."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return with_trace(headers, carrier, _PROPAGATOR.fields) if carrier else headers


class Telemetry:
    """One process's metrics and traces; its composition root makes it once and passes it in.

    Spans are exported only with ``settings.otlp_endpoint``; without it a span still passes trace context on, so that a
    publisher's trace reaches the final. ``spans`` and ``readers`` add sinks, for example in a test.
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        *,
        spans: tuple[SpanProcessor, ...] = (),
        readers: tuple[MetricReader, ...] = (),
    ) -> None:
        # The exporters import protobuf and requests, which takes half a second that the command line need not spend.
        from opentelemetry.exporter.prometheus import PrometheusMetricReader  # noqa: PLC0415
        from prometheus_client import CollectorRegistry  # noqa: PLC0415

        resource = Resource({"service.name": f"kaption-{name}", "service.namespace": "kaption"})
        self._registry = CollectorRegistry()
        prometheus = PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, registry=self._registry)
        if settings.otlp_endpoint:
            extra_spans, extra_readers = _otlp(settings.otlp_endpoint)
            spans, readers = (*spans, extra_spans), (*readers, extra_readers)
        self._meters = MeterProvider([prometheus, *readers], resource=resource, shutdown_on_exit=False)
        self._tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        for processor in spans:
            self._tracers.add_span_processor(processor)
        meter = self._meters.get_meter("kaption")
        self._tracer = self._tracers.get_tracer("kaption")
        self._instruments = {metric.name: _instrument(meter, metric) for metric in METRICS}

    def record(self, metric: Metric, value: float = 1, **labels: str) -> None:
        """Add to a counter, set a gauge, or observe in a histogram.

        Raises ``ValueError`` for a label that the metric does not declare.
        """
        if not labels.keys() <= set(metric.labels):
            raise ValueError(f"{metric.name} has the labels {metric.labels}, not {tuple(labels)}")
        instrument = self._instruments[metric.name]
        if isinstance(instrument, Counter):
            instrument.add(value, labels)
        elif isinstance(instrument, Histogram):
            instrument.record(value, labels)
        else:
            instrument.set(value, labels)

    @contextmanager
    def span(
        self,
        operation: Operation,
        topic: str,
        *,
        parent: Headers | None = None,
        links: Iterable[Headers] = (),
        partition: int | None = None,
        group: str | None = None,
        count: int | None = None,
    ) -> Iterator[Span]:
        """Open a span ``<operation> <topic>`` around some work; it is the current span within the ``with``.

        ``parent``: the headers of the record that caused the work (default: the current span); ``links``: the headers of
        each record of a batch. Exceptions propagate; the span records only their type, since a message may quote a record.
        """
        kind, operation_type = _KINDS[operation]
        attributes: dict[str, str | int] = {
            SYSTEM: "kafka",
            OPERATION_NAME: operation,
            OPERATION_TYPE: operation_type,
            DESTINATION: topic,
        }
        if partition is not None:
            attributes[PARTITION] = str(partition)
        if group is not None:
            attributes[GROUP] = group
        if count is not None:
            attributes[BATCH_COUNT] = count
        span = self._tracer.start_span(
            f"{operation} {topic}",
            context=None if parent is None else extract(parent),
            kind=kind,
            attributes=attributes,
            links=_links(links),
        )
        token = otel_context.attach(set_span_in_context(span))
        try:
            yield span
        except BaseException as error:
            span.set_attribute(ERROR_TYPE, type(error).__name__)
            span.set_status(StatusCode.ERROR)
            raise
        finally:
            otel_context.detach(token)
            span.end()

    def prometheus(self) -> str:
        """Return every metric in Prometheus' text format."""
        from prometheus_client import generate_latest  # noqa: PLC0415

        return generate_latest(self._registry).decode()

    def shutdown(self) -> None:
        """Flush pending data within the exporters' timeouts, and stop their threads."""
        self._tracers.shutdown()
        self._meters.shutdown()


def _links(records: Iterable[Headers]) -> list[Link]:
    contexts = [get_current_span(extract(headers)).get_span_context() for headers in records]
    return [Link(context) for context in contexts if context.is_valid]


def _instrument(meter: Meter, metric: Metric) -> Counter | Gauge | Histogram:
    # Without a unit: the exporter would append it to the name a second time.
    if metric.kind == "counter":
        return meter.create_counter(metric.name.removesuffix("_total"), description=metric.description)
    if metric.kind == "gauge":
        return meter.create_gauge(metric.name, description=metric.description)
    return meter.create_histogram(
        metric.name, description=metric.description, explicit_bucket_boundaries_advisory=metric.buckets
    )


def _otlp(endpoint: str) -> tuple[SpanProcessor, MetricReader]:
    """Make exporters to a collector's OTLP/HTTP ``endpoint``, a root to which /v1/traces and /v1/metrics are added."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    root = endpoint.rstrip("/")
    return (
        BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{root}/v1/traces", timeout=5)),
        PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=f"{root}/v1/metrics", timeout=5)),
    )
