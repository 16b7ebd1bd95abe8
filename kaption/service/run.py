"""Runs a service process: settings, logs, telemetry, health, signals, the check of topics, drain, and exit status.

A service is a row of ``services`` and a coroutine function ``serve``. The shell calls ``serve`` once, with a ``Process``.
Until ``serve`` sets ``started`` it has nothing to hand over, and SIGTERM ends the process at once. After that, SIGTERM
sets ``stop``; ``serve`` drains and returns, and the status is 0. An exception from ``serve`` is logged and ends the process
with status 1, so that a supervisor starts it again. After SIGTERM or a failure, the process ends within
``ending.END_SECONDS``, whatever it waits for.
"""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from aiohttp import web
from aiokafka.errors import KafkaError

from kaption.adapters.kafka.topics import ensure
from kaption.adapters.logs import configure
from kaption.adapters.processes.confinement import hide
from kaption.adapters.settings import CONFIG_STATUS, Settings, service_settings
from kaption.adapters.telemetry import Telemetry
from kaption.service.ending import end, end_soon
from kaption.service.health import Health
from kaption.service.services import Service
from kaption_schemas.errors import StoreError, TopicsError

log = logging.getLogger(__name__)

#: Errors at the start that are no fault of the code: their message says what to do.
_REFUSALS = (TopicsError, StoreError, KafkaError, OSError)


@dataclass(frozen=True, slots=True)
class Process:
    """The arguments of a service. It sets ``health.ready`` and ``started``, and waits for ``stop``."""

    service: Service
    settings: Settings
    telemetry: Telemetry
    health: Health
    started: asyncio.Event = field(default_factory=asyncio.Event)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def group(self) -> str:
        """The service's consumer group."""
        return f"{self.settings.group}.{self.service.group}"


Serve = Callable[[Process], Awaitable[None]]


def run_service(service: Service, serve: Serve, routes: Sequence[web.AbstractRouteDef] = ()) -> NoReturn:
    """Run ``service`` until SIGTERM or a failure, and end the process.

    Args:
        service: The service's row of the table.
        serve: The service's work.
        routes: Further paths of the health endpoint.
    """
    hide()
    settings = service_settings(service.name)
    configure(settings, service.name, package=service.module)
    if service.stages == "staged":
        settings = settings.model_copy(update={"stages": "staged"})
    elif service.stages not in (None, settings.stages):
        what = f"KAPTION_STAGES={settings.stages} has no {service.name}: start each stage by itself, with --stage"
        log.critical("settings_refused", extra={"error": what})
        end(CONFIG_STATUS)
    status = asyncio.run(_run(service, settings, serve, routes))
    # Do not wait for a thread that hangs.
    end(status)


async def _run(service: Service, settings: Settings, serve: Serve, routes: Sequence[web.AbstractRouteDef]) -> int:
    telemetry = Telemetry(settings, service.name)
    process = Process(service, settings, telemetry, Health(telemetry.prometheus, routes))

    def stopping() -> None:
        end_soon()
        process.health.ready = False
        process.stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping)
    try:
        await process.health.start(settings, service.name)
        work = asyncio.create_task(_work(process, serve), name=service.name)
        stopped = asyncio.create_task(process.stop.wait())
        await asyncio.wait((work, stopped), return_when=asyncio.FIRST_COMPLETED)
        # A library may swallow the cancellation of a service that is still starting.
        if process.stop.is_set() and not process.started.is_set():
            end(0)
        await work
    except Exception as error:  # the process's one broad except: log any error and end
        if isinstance(error, _REFUSALS) and not process.started.is_set():
            log.error("start_failed", extra={"error": f"{type(error).__name__}: {error}"})
        else:
            log.exception("process_failed")
        return 1
    finally:
        end_soon()
        await process.health.stop()
        await asyncio.to_thread(telemetry.shutdown)
    return 0


async def _work(process: Process, serve: Serve) -> None:
    if process.service.topics:
        await ensure(process.settings, *process.service.topics)
    await serve(process)
