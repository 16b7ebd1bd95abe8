"""Measures a worker's delay, and refuses new runs when it is overloaded. ``kaption.domain.pool.overload`` decides the steps."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from aiokafka import TopicPartition

from kaption.adapters.settings import Settings
from kaption.domain.decoding.port import Kind
from kaption.domain.pool.overload import Overload, Signs, Step, below_share
from kaption.domain.pool.plan import Candidate
from kaption.domain.records import Latency
from kaption_gpu.engine.executor import Executors
from kaption_gpu.lanes.lane import Lane
from kaption_schemas.reasons import Reason

log = logging.getLogger(__name__)


class Load:
    """The load of one worker with ``lanes``. ``changed`` takes each step as it is observed."""

    def __init__(
        self,
        settings: Settings,
        executors: Executors,
        lanes: Mapping[TopicPartition, Lane],
        changed: Callable[[Step], None],
    ) -> None:
        self._settings = settings
        self._executors = executors
        self._lanes = lanes
        self._changed = changed
        self._overload = Overload()
        self._observed = (time.monotonic(), 0.0)

    @property
    def finals_late(self) -> bool:
        """Whether finals of live runs are late."""
        return self._overload.finals_late

    def observe(self, waiting: Iterable[Candidate], reading_s: float) -> None:
        """Observe the delay: the ``waiting`` windows, and the seconds by which reading of live audio is late.

        A change of the step is logged, and each step goes to the metrics.
        """
        now, busy = time.monotonic(), self._executors.busy_seconds()
        (then, before), self._observed = self._observed, (now, busy)
        live = [c for c in waiting if c.latency is Latency.LIVE]
        signs = Signs(
            busy=(busy - before) / max(1e-6, (now - then) * self._settings.executors),
            partial_s=max((c.overdue_s for c in live if c.kind is Kind.PARTIAL), default=0.0),
            final_s=max((c.overdue_s for c in live if c.kind is Kind.FINAL), default=0.0),
            reading_s=reading_s,
            files=bool(live) and self._files_wait(),
        )
        if self._overload.observe(now, signs):
            step = self._overload.step
            level = logging.WARNING if self._overload.refuses else logging.INFO
            figures = {"busy": round(signs.busy, 2), "late_seconds": round(signs.late_s, 1)}
            log.log(level, "overload_step_changed", extra={"step": step.name.lower(), **figures})
        self._changed(self._overload.step)

    def refusal(self, tenant: str, here: int, *, new: bool) -> Reason | None:
        """See ``kaption.domain.pool.ports.Admission``. A lane's former owner, too, kept a tenant's runs within a worker's limit."""
        most = self._settings.tenant_runs
        if not new:
            return Reason.TOO_MANY_RUNS if here > most else None
        lanes = (lane.memory for lane in self._lanes.values() if lane.source.latency is Latency.LIVE)
        counts = [memory.runs_by_tenant() for memory in lanes if memory]
        if sum(count[tenant] for count in counts) > most:
            return Reason.TOO_MANY_RUNS
        if not self._overload.refuses or below_share(tenant, sum(counts, Counter[str]())):
            return None
        return Reason.OVERLOADED

    def _files_wait(self) -> bool:
        """Whether a file has windows to decode. Judged by lane, since a live run's late last finals are also planned as file work."""
        files = (lane for lane in self._lanes.values() if lane.source.latency is Latency.BATCH)
        return any(lane.memory is not None and any(True for _ in lane.memory.wants(lane.now_ms())) for lane in files)
