"""Composes a pool worker. Only this module knows which parts are used."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from kaption.adapters.presidio import PresidioRedactor
from kaption.adapters.settings import Settings
from kaption.adapters.store.s3 import ObjectStore
from kaption.domain.decoding.port import Backend
from kaption.domain.records import Latency, RunKey
from kaption.domain.run.config import Ports, SessionConfig
from kaption.domain.run.session import Session
from kaption.service.run import Process
from kaption_gpu.engine.backends import make_backend
from kaption_gpu.engine.executor import load
from kaption_gpu.engine.vad import SileroDetector
from kaption_gpu.lanes.objects import StoreObjects
from kaption_gpu.statistics import PoolMetrics, PoolTracing
from kaption_gpu.worker import Worker, WorkerParts

log = logging.getLogger(__name__)

MakeBackend = Callable[[Settings], Backend]


class RealSessions:
    """Implements ``kaption.domain.pool.ports.Sessions`` with the domain's sessions."""

    def __init__(self, config: SessionConfig, ports: Ports) -> None:
        self._config = config
        self._ports = ports

    def new(self, key: RunKey, latency: Latency) -> Session:
        """Make a session for a new run."""
        return Session(key, latency, self._config, self._ports)

    def restore(self, snapshot: bytes) -> Session:
        """Continue from a snapshot. Raises ``IncompatibleError``."""
        return Session.restore(snapshot, self._config, self._ports)


def session_config(settings: Settings) -> SessionConfig:
    """The sessions' configuration from the settings."""
    return SessionConfig(
        redaction=settings.redaction,
        beam_size=settings.beam_size,
        partial_step=settings.partial_step_seconds,
        prompt_seconds=settings.prompt_seconds,
        idle_final=settings.idle_final_seconds,
        idle_close=settings.idle_close_seconds,
        unheard_close=settings.unheard_close_seconds,
        ahead=settings.ahead_seconds,
    )


async def serve(process: Process, make: MakeBackend = make_backend) -> None:
    """Load the model that ``make`` makes, warm it up, and work until the process must stop."""
    settings, telemetry = process.settings, process.telemetry
    backend, costs = await load(partial(make, settings), settings.executors, settings.batch_size)
    # Load its networks before the first record, and after the measurement above.
    await asyncio.to_thread(SileroDetector)
    ports = Ports(SileroDetector, PresidioRedactor(), backend.info)
    metrics = PoolMetrics(telemetry, backend.info, settings.executors)
    sessions = RealSessions(session_config(settings), ports)
    objects = StoreObjects(ObjectStore(settings), settings.work_bucket)
    tracing = PoolTracing(telemetry, process.group)
    worker = Worker(WorkerParts(settings, backend, sessions, objects, metrics.sinks(), tracing, costs))

    def ready() -> None:
        process.started.set()
        process.health.ready = True
        info = backend.info
        log.info("worker_warm", extra={"model": info.alias, "backend": info.backend, "precision": info.precision})

    await worker.run(process.stop, ready)
