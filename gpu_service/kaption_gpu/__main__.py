"""``python -m kaption_gpu``: one pool worker. The composition root: the only place that knows which parts are used."""

import asyncio
import ctypes
import logging
import signal
from collections.abc import Callable
from functools import partial

from kaption.adapters import logs
from kaption.adapters.kafka.topics import TopicsError, ensure
from kaption.adapters.presidio import PresidioRedactor
from kaption.adapters.processes.confinement import hide
from kaption.adapters.processes.ending import end, end_soon
from kaption.adapters.processes.health import Health
from kaption.adapters.settings import Settings, service_settings
from kaption.adapters.store.s3 import ObjectStore
from kaption.adapters.telemetry import Telemetry
from kaption.domain.decoding.port import Backend
from kaption.domain.pool.ports import SnapshotUnreadableError
from kaption.domain.records import Latency, RunKey
from kaption.domain.run.config import Ports, SessionConfig
from kaption.domain.run.session import Session
from kaption.domain.run.snapshots import SnapshotError
from kaption_gpu.engine.backends import make_backend
from kaption_gpu.engine.executor import load
from kaption_gpu.engine.vad import SileroDetector
from kaption_gpu.lanes.objects import StoreObjects
from kaption_gpu.statistics import PoolMetrics, PoolTracing
from kaption_gpu.worker import Worker, WorkerParts
from kaption_schemas.topics import BATCH, DLQ, FINAL, LIVE, PARTIAL, STATE

NAME = "pool"
_TOPICS = (LIVE, BATCH, STATE, PARTIAL, FINAL, DLQ)
#: From glibc's malloc.h.
_M_ARENA_MAX = -8
log = logging.getLogger("kaption_gpu")


class RealSessions:
    """``kaption.domain.pool.ports.Sessions`` of the domain's sessions."""

    def __init__(self, config: SessionConfig, ports: Ports) -> None:
        self._config = config
        self._ports = ports

    def new(self, key: RunKey, latency: Latency) -> Session:
        """A run's first record has come."""
        return Session(key, latency, self._config, self._ports)

    def restore(self, snapshot: bytes) -> Session:
        """Continue from a snapshot. Raises ``SnapshotUnreadableError``."""
        try:
            return Session.restore(snapshot, self._config, self._ports)
        except SnapshotError as error:
            raise SnapshotUnreadableError from error


def session_config(settings: Settings) -> SessionConfig:
    """What the settings say of every run."""
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


async def serve(settings: Settings, make: Callable[[Settings], Backend] = make_backend) -> None:
    """Load what ``make`` makes, warm it up, and work until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stopping() -> None:
        end_soon()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping)
    telemetry = Telemetry(settings, NAME)
    health = Health(telemetry.prometheus)
    await health.start(settings, NAME)
    try:
        await ensure(settings, *_TOPICS)
        backend, costs = await load(partial(make, settings), settings.executors, settings.batch_size)
        # Its networks before the first record waits for them, and not beside what is measured above.
        await asyncio.to_thread(SileroDetector)
        ports = Ports(SileroDetector, PresidioRedactor(), backend.info)
        metrics = PoolMetrics(telemetry, backend.info, settings.executors)
        sessions = RealSessions(session_config(settings), ports)
        tracing = PoolTracing(telemetry, f"{settings.group}.pool")
        objects = StoreObjects(ObjectStore(settings), settings.work_bucket)
        worker = Worker(WorkerParts(settings, backend, sessions, objects, metrics.sinks(), tracing, costs))

        def ready() -> None:
            health.ready = True
            info = backend.info
            log.info(
                "worker_warm",
                extra={"model": info.alias, "backend": info.backend, "precision": info.precision},
            )

        await worker.run(stop, ready)
    finally:
        end_soon()
        await health.stop()
        await asyncio.to_thread(telemetry.shutdown)


def _share_heaps() -> None:
    """Let the threads share two of glibc's heaps: it would make eight a core, each with holes of its own, 60 MB in all."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_ARENA_MAX, 2)


def main() -> None:
    """Run until stopped; exit status 1 after a failure, for the supervisor to start it again."""
    _share_heaps()
    hide()
    settings = service_settings(NAME)
    logs.configure(settings, NAME)
    status = 0
    try:
        asyncio.run(serve(settings))
    except TopicsError as error:
        log.error("start_failed", extra={"error": str(error)})  # the topics' fault, so no place in the code
        status = 1
    except Exception:  # the process's one broad except: whatever it was, log its type and end
        log.exception("worker_failed")
        status = 1
    # A hung batch is a thread that never ends.
    end(status)


if __name__ == "__main__":
    main()
