"""Describes the processes of one machine: their commands, their health endpoints, and the order in which they stop.

``kaption up`` uses this. It does not know what a process does.
"""

import contextlib
import signal
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aiokafka.errors import KafkaError

from kaption.adapters.kafka.embedded import BrokerCommand, answers, apache, embedded
from kaption.adapters.processes.supervisor import ChildSpec
from kaption.adapters.processes.tcp_ports import LOOPBACK, free_port
from kaption.adapters.settings import Settings, child_environment, harmless_environment
from kaption.adapters.store import embedded as embedded_s3
from kaption.service.aggregate import answers_ready
from kaption.service.services import BROKER, STORE, Service, running, stop_order

BrokerKind = Literal["embedded", "apache"]


@dataclass(frozen=True, slots=True)
class Instance:
    """One of Kaption's processes, its service, and the address of its endpoint."""

    service: Service
    spec: ChildSpec
    url: str


def broker_command(kind: BrokerKind, settings: Settings, port: int) -> BrokerCommand:
    """The broker to start. Raises ``ProcessError`` where it can't be."""
    data = settings.data / "kafka"
    if kind == "embedded":
        return embedded(data / "embedded", port)
    return apache(settings.kafka_home, data / "apache", port)


def broker_spec(command: BrokerCommand, settings: Settings) -> ChildSpec:
    """The broker as a child. ``settings.kafka`` must be its address."""

    async def ready() -> bool:
        return await answers(settings)

    return ChildSpec(
        name=BROKER,
        argv=command.argv,
        env=harmless_environment() | command.env,
        log=_log(settings, BROKER),
        ready=ready,
        prepare=command.prepare,
        # The embedded broker loses its data at SIGKILL, so it gets SIGTERM when its supervisor is killed.
        parent_death_signal=signal.SIGKILL if command.durable else signal.SIGTERM,
    )


def instances(settings: Settings) -> tuple[Instance, ...]:
    """The processes of every service, each with a free port of its own."""
    return tuple(
        _instance(service, name, settings) for service in running(settings) for name in service.names(settings)
    )


def _instance(service: Service, name: str, settings: Settings) -> Instance:
    port = free_port()
    url = f"http://{LOOPBACK}:{port}"
    env = child_environment(settings) | {"KAPTION_HTTP_HOST": LOOPBACK, "KAPTION_HTTP_PORT": str(port)}

    async def ready() -> bool:
        return await answers_ready(url)

    async def needs() -> bool:
        with contextlib.suppress(KafkaError):
            return await answers(settings) and (STORE not in service.needs or await embedded_s3.answers(settings))
        return False

    spec = ChildSpec(
        name,
        (sys.executable, *service.command),
        env,
        _log(settings, name),
        ready,
        hang_seconds=settings.hang_seconds,
        needs=needs,
    )
    return Instance(service, spec, url)


def stop_groups(instances: Iterable[Instance]) -> list[tuple[str, ...]]:
    """The names of processes in groups that stop together, in the order of their stop; store and broker are last."""
    instances = tuple(instances)
    services = {one.service.name: one.service for one in instances}
    groups = [
        tuple(one.spec.name for one in instances if one.service in group) for group in stop_order(services.values())
    ]
    return [*groups, (STORE, BROKER)]


def _log(settings: Settings, name: str) -> Path:
    return settings.data / "logs" / f"{name}.log"


def store_spec(settings: Settings, port: int) -> tuple[Settings, ChildSpec]:
    """The embedded object store as a child, and the settings that reach it. Raises ``StoreError``."""
    secret = settings.s3_secret_key.get_secret_value()
    command = embedded_s3.embedded(settings.data / "s3", port, settings.s3_access_key, secret)
    settings = settings.model_copy(update={"s3": command.url})

    async def ready() -> bool:
        return await embedded_s3.answers(settings)

    env = harmless_environment() | command.env
    return settings, ChildSpec(
        name=STORE,
        argv=command.argv,
        env=env,
        log=_log(settings, STORE),
        ready=ready,
        drain_seconds=embedded_s3.DRAIN_SECONDS,
        kill_is_usual=True,
        clean=command.clean,
    )
