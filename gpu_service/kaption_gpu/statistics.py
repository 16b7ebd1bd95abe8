"""Renders the pool's statistics as metrics. The loop hands over data; ``telemetry`` declares the metrics."""

import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager

from aiokafka.structs import ConsumerRecord

from kaption.adapters import telemetry as names
from kaption.adapters.telemetry import Telemetry, inject
from kaption.domain.decoding.port import SAMPLE_RATE, ModelInfo
from kaption.domain.pool.overload import Step
from kaption_gpu.batches import BatchStats, Recovered
from kaption_gpu.engine.executor import Cause
from kaption_gpu.lanes.data import Draft, Shown, Source
from kaption_gpu.lanes.lane import LaneStats
from kaption_gpu.lanes.transactions import PartialsStats
from kaption_gpu.worker import Sinks
from kaption_schemas.codec import Headers, Message, is_traced


class PoolTracing:
    """Implements ``kaption_gpu.lanes.transactions.Tracing`` with OpenTelemetry: a publisher's trace continues to its finals."""

    def __init__(self, telemetry: Telemetry, group: str) -> None:
        self._telemetry = telemetry
        self._group = group

    def poll(self, source: Source, records: Sequence[ConsumerRecord]) -> None:
        """Make a span that links to each traced record. Makes none if no record is traced."""
        traced = [record.headers for record in records if is_traced(record.headers)]
        if traced:
            place = {"partition": source.partition, "group": self._group, "count": len(records)}
            with self._telemetry.span("poll", source.topic, links=traced, **place):  # type: ignore[arg-type]  # as named
                pass

    def commit(self, source: Source, count: int) -> AbstractContextManager[object]:
        """A span around a transaction of ``count`` records."""
        return self._telemetry.span("commit", source.topic, partition=source.partition, group=self._group, count=count)

    def send(self, message: Message) -> Headers:
        """The headers to write. The span's parent is the record from which the transcript came."""
        if message.kind is None or not is_traced(message.headers):  # a dead letter keeps its headers
            return message.headers
        with self._telemetry.span("send", message.topic, parent=message.headers):
            return inject(message.headers)


class PoolMetrics:
    """Renders what the worker reports."""

    def __init__(self, telemetry: Telemetry, model: ModelInfo, executors: int) -> None:
        self._telemetry = telemetry
        self._model = model.alias
        self._executors = executors
        self._busy = 0.0
        self._since = time.monotonic()
        self._partials = PartialsStats(0, 0, 0)
        telemetry.record(names.MODEL_INFO, 1, alias=model.alias, digest=model.digest)
        telemetry.record(names.BACKEND_INFO, 1, backend=model.backend, precision=model.precision)

    def sinks(self) -> Sinks:
        """The callbacks for the worker."""
        return Sinks(
            decoded=self.decoded, shown=self.shown, committed=self.committed, failed=self.failed, state=self.state,
            left_out=self.left_out, overload=self.overload, replaced=self.replaced, recovered=self.recovered,
        )  # fmt: skip

    def overload(self, step: Step) -> None:
        """Count the overload step: what the pool sheds now."""
        self._telemetry.record(names.OVERLOAD_STEP, step.value)

    def replaced(self, cause: Cause) -> None:
        """Count a replaced executor."""
        self._telemetry.record(names.EXECUTORS_REPLACED, cause=cause.value)

    def recovered(self, stats: Recovered) -> None:
        """Count the requeued and the abandoned windows of a failed batch."""
        kind = stats.batch.kind.value
        self._telemetry.record(names.WINDOWS_AGAIN, stats.again, kind=kind)
        self._telemetry.record(names.WINDOWS_GIVEN_UP, stats.given_up, kind=kind)

    def decoded(self, stats: BatchStats) -> None:
        """Count a decoded batch."""
        record, batch = self._telemetry.record, stats.batch
        labels = {"model": self._model, "kind": batch.kind.value}
        record(names.BATCH_SIZE, len(batch.windows), **labels)
        record(names.INFERENCE_DURATION, stats.seconds, **labels)
        record(names.QUEUE_TIME, max(batch.waited_s, 0.0), **labels)
        audio = len(batch.windows) * batch.padded / SAMPLE_RATE
        record(names.REAL_TIME_FACTOR, stats.seconds / audio, model=self._model)
        self._busy += stats.seconds
        for result in stats.results:
            if result.suppressed:
                record(names.HALLUCINATION_SUPPRESSED, 1, model=self._model, reason=str(result.suppressed))
            if result.fallback:
                record(names.FALLBACK, 1, model=self._model, reason=str(result.fallback))

    def shown(self, source: Source, shown: Shown) -> None:
        """Count a partial."""
        record = self._telemetry.record
        record(names.END_TO_END_LATENCY, max(shown.late_s, 0.0), model=self._model, topic=source.topic)
        if shown.first_s is not None:
            labels = {"model": self._model, "language": shown.language or "unknown"}
            record(names.TIME_TO_FIRST_PARTIAL, max(shown.first_s, 0.0), **labels)

    def committed(self, source: Source, draft: Draft) -> None:
        """Count a committed transaction."""
        record, stats = self._telemetry.record, draft.stats
        record(names.TRANSACTIONS, topic=source.topic, outcome="committed")
        for reason in stats.dead_letters:
            record(names.DEAD_LETTERS, reason=reason.value)
        if stats.audio_seconds:
            labels = {"model": self._model, "topic": source.topic}
            record(names.AUDIO_SECONDS, stats.audio_seconds, **labels)
        if stats.repeats:
            record(names.REPEATS, stats.repeats, topic=source.topic)
        for seconds, language in stats.latencies:
            record(names.FINAL_LATENCY, max(seconds, 0.0), model=self._model, language=language or "unknown")

    def failed(self, source: Source) -> None:
        """Count a transaction that failed or has an unclear end."""
        self._telemetry.record(names.TRANSACTIONS, topic=source.topic, outcome="failed")

    def left_out(self, source: Source, records: int) -> None:
        """Count records that a transaction left out, because their topics cannot be written to."""
        self._telemetry.record(names.LEFT_OUT, records, topic=source.topic)

    def state(self, overdue: float, partials: PartialsStats, lanes: tuple[LaneStats, ...]) -> None:
        """Set the gauges, about once a second. ``overdue``: seconds of audio in windows past their deadline."""
        record = self._telemetry.record
        now = time.monotonic()
        record(names.DEVICE_BUSY, min(self._busy / max((now - self._since) * self._executors, 1e-6), 1.0))
        self._busy, self._since = 0.0, now
        record(names.OVERDUE, overdue)
        record(names.PARTIAL_REVISIONS, partials.written - self._partials.written, model=self._model)
        record(names.PARTIALS_SHED, partials.shed - self._partials.shed, model=self._model)
        self._partials = partials
        by_topic: dict[str, list[LaneStats]] = defaultdict(list)
        for lane in lanes:
            by_topic[lane.source.topic].append(lane)
        for topic, group in by_topic.items():
            record(names.LANES, sum(lane.ready for lane in group), topic=topic)
            record(names.SESSIONS, sum(lane.runs for lane in group), topic=topic)
            record(names.AUDIO_BACKLOG, sum(lane.backlog_seconds for lane in group), topic=topic)
            record(names.READING_LATE, max(lane.reading_s for lane in group), topic=topic)
            record(names.COMMIT_AGE, max(lane.commit_age_s for lane in group), topic=topic)
