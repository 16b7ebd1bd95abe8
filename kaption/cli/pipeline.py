"""The processes of one machine: which there are, how each is started and asked, and in which order they stop.

``kaption up`` wires this; what a process does is its own.
"""

import contextlib
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aiokafka.errors import KafkaError

from kaption.adapters.kafka.embedded import BrokerCommand, answers, apache, embedded
from kaption.adapters.processes.aggregate import answers_ready
from kaption.adapters.processes.supervisor import ChildSpec
from kaption.adapters.processes.tcp_ports import LOOPBACK, free_port
from kaption.adapters.settings import Settings, child_environment, harmless_environment
from kaption.adapters.store import embedded as embedded_s3

BROKER = "kafka"
STORE = "s3"
LIVE = "live"
FILES = "files"

BrokerKind = Literal["embedded", "apache"]


@dataclass(frozen=True, slots=True)
class Service:
    """A process of Kaption's own and the address of its endpoint."""

    spec: ChildSpec
    url: str


def broker_command(kind: BrokerKind, settings: Settings, port: int) -> BrokerCommand:
    """The broker to start. Raises ``BrokerError`` where it can't be."""
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
        # The embedded broker loses what it holds at SIGKILL, so a killed supervisor takes it down gently.
        parent_death_signal=signal.SIGKILL if command.durable else signal.SIGTERM,
    )


def services(settings: Settings) -> tuple[Service, ...]:
    """The agents and the pool, each with a free port of its own."""
    workers = tuple(f"pool-{number}" for number in range(1, settings.workers + 1))
    return (
        _service(LIVE, ("kaption_streams", "live"), settings),
        _service(FILES, ("kaption_streams", "files"), settings),
        *(_service(name, ("kaption_gpu",), settings) for name in workers),
    )


def _service(name: str, module: tuple[str, ...], settings: Settings) -> Service:
    port = free_port()
    url = f"http://{LOOPBACK}:{port}"
    env = child_environment(settings) | {"KAPTION_HTTP_HOST": LOOPBACK, "KAPTION_HTTP_PORT": str(port)}

    async def ready() -> bool:
        return await answers_ready(url)

    async def needs() -> bool:
        with contextlib.suppress(KafkaError):
            return await answers(settings) and (name != FILES or await embedded_s3.answers(settings))
        return False

    spec = ChildSpec(
        name,
        (sys.executable, "-m", *module),
        env,
        _log(settings, name),
        ready,
        hang_seconds=settings.hang_seconds,
        needs=needs,
    )
    return Service(spec, url)


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
