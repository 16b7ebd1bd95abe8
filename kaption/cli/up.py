"""``kaption up``: the whole pipeline on this machine, as supervised processes."""

import asyncio
import fcntl
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import click

from kaption.adapters import logs
from kaption.adapters.kafka import topics
from kaption.adapters.kafka.embedded import TRYING_OUT
from kaption.adapters.processes.confinement import hide
from kaption.adapters.processes.supervisor import ChildSpec, Supervisor
from kaption.adapters.processes.tcp_ports import LOOPBACK, free_port
from kaption.adapters.settings import Settings
from kaption.adapters.store import embedded as embedded_s3
from kaption.adapters.telemetry import RESTARTS, Telemetry
from kaption.cli import pipeline, watch
from kaption.cli.exits import Exit, Failed, load_settings
from kaption.cli.reach import broker
from kaption.service.aggregate import Aggregate, Status
from kaption.service.services import BROKER, STORE
from kaption_schemas.errors import ProcessError, StoreError, StoreRefusedError

_KAFKA_PORT = 9092
_S3_PORT = 8333
_HTTP_PORT = 8787
_MIN_FREE_BYTES = 512 << 20


@dataclass(frozen=True, slots=True)
class Plan:
    """The parts to run. ``broker`` and ``store`` are None where the user brings one."""

    settings: Settings
    broker: ChildSpec | None
    store: ChildSpec | None
    instances: tuple[pipeline.Instance, ...]
    http_port: int


def say(line: str) -> None:
    """Print one line for the operator on stderr: scripts wait for a line on stdout."""
    click.echo(f"kaption: {line}", err=True)


@click.command()
@click.option(
    "--data", type=click.Path(file_okay=False, path_type=Path), help="Folder for data and logs [KAPTION_DATA]."
)
@click.option(
    "--kafka",
    default="embedded",
    show_default=True,
    metavar="embedded|apache|HOST:PORT",
    help="embedded: for trying out; apache: a private node from KAFKA_HOME; else a broker that runs already.",
)
@click.option(
    "--kafka-port", type=click.IntRange(0, 65535), help=f"Port of the broker [{_KAFKA_PORT}, else a free one]."
)
@click.option("--s3", default="embedded", show_default=True, metavar="embedded|URL", help="The object store.")
@click.option("--http-port", type=click.IntRange(0, 65535), help=f"Health and metrics [{_HTTP_PORT}, else a free one].")
@click.option(
    "--stages",
    type=click.Choice(["fused", "staged"]),
    help="Stages in one process, or in three with topics between them.",
)
@click.option("--workers", type=click.IntRange(1), help="Pool workers [KAPTION_WORKERS].")
@click.option("--model", metavar="ALIAS", help="tiny.en or base [KAPTION_MODEL].")
@click.option(
    "--backend",
    metavar="NAME",
    help="auto, faster-whisper, openvino, openvino-int8 or openai-whisper [KAPTION_BACKEND].",
)
def command(
    *,
    data: Path | None,
    kafka: str,
    kafka_port: int | None,
    s3: str,
    http_port: int | None,
    stages: str | None,
    workers: int | None,
    model: str | None,
    backend: str | None,
) -> None:
    """Run the whole pipeline on this machine: broker, object store, agents and pool, until Ctrl-C.

    Once all of it is warm, one line goes to stdout: "ready kafka=HOST:PORT s3=URL http=URL".

    http serves /health, /ready and /metrics of all processes. A process that dies is started again. Everything listens
    on 127.0.0.1 only; logs are in DATA/logs.
    """
    hide()
    os.umask(0o077)  # no other user may read the audio and transcripts that this process and its children write
    settings = load_settings(data=data, stages=stages, workers=workers, model=model, backend=backend)
    settings = settings.model_copy(update={"data": settings.data.resolve()})
    with _workplace(settings.data) as log:
        logs.configure(settings, "up", log)
        plan = _plan(settings, kafka, kafka_port, s3, http_port)
        if kafka == "embedded":
            say(TRYING_OUT)
        asyncio.run(_run(plan))


@contextmanager
def _workplace(data: Path) -> Iterator[TextIO]:
    """Check the data folder and lock it for this process. Yields the supervisor's log file."""
    try:
        (data / "logs").mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(data).free
        lock = (data / "up.lock").open("a+")
        log = (data / "logs/up.log").open("a", encoding="utf-8")
    except OSError as error:
        what = f"the data folder {data} can't be written ({error.strerror})"
        raise Failed(Exit.DISK, f"{what}: free room or permissions there, or choose another with --data") from None
    with lock, log:
        if free < _MIN_FREE_BYTES:
            what = f"the disk of {data} has {free >> 20} MiB left and {_MIN_FREE_BYTES >> 20} are needed"
            raise Failed(Exit.DISK, f"{what}: free some room, or choose another folder with --data")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            what = f"another `kaption up` works in {data}"
            raise Failed(Exit.IN_USE, f"{what}: stop it, or choose another folder with --data") from None
        yield log


def _plan(settings: Settings, kafka: str, kafka_port: int | None, s3: str, http_port: int | None) -> Plan:
    command = None
    if kafka in ("embedded", "apache"):
        port = _port("--kafka-port", kafka_port, _KAFKA_PORT)
        try:
            command = pipeline.broker_command("apache" if kafka == "apache" else "embedded", settings, port)
        except ProcessError as error:
            raise Failed(Exit.CONFIG, str(error)) from None
        # The broker that we start has no users; credentials in the environment are for another broker.
        local = {"kafka_security": "PLAINTEXT", "kafka_username": None, "kafka_password": None, "replication": 1}
        settings = settings.model_copy(update={"kafka": command.bootstrap, **local})
    else:
        settings = settings.model_copy(update={"kafka": kafka})
    store = None
    if s3 == "embedded":
        try:
            settings, store = pipeline.store_spec(settings, _port("", None, _S3_PORT))
        except StoreError as error:
            raise Failed(Exit.CONFIG, str(error)) from None
    else:
        settings = settings.model_copy(update={"s3": s3})
    return Plan(
        settings=settings,
        broker=pipeline.broker_spec(command, settings) if command else None,
        store=store,
        instances=pipeline.instances(settings),
        http_port=_port("--http-port", http_port, _HTTP_PORT),
    )


def _port(option: str, asked: int | None, usual: int) -> int:
    """The port that the user asked for, which must be free. Without one: the usual port, or any free port if that is taken."""
    if asked == 0:
        return free_port()
    if _is_free(asked or usual):
        return asked or usual
    if asked:
        what = f"port {asked} on {LOOPBACK} is in use"
        raise Failed(
            Exit.IN_USE, f"{what}: stop what listens there, or give another with {option} (0 takes a free one)"
        )
    return free_port()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


async def _run(plan: Plan) -> None:
    """Start everything, report it, and keep it running until a signal. Then stop it in order."""
    telemetry = Telemetry(plan.settings, "up")
    supervisor = Supervisor(say, restarted=lambda name: telemetry.record(RESTARTS, process=name.partition("-")[0]))
    urls = {one.spec.name: one.url for one in plan.instances}
    brought = _brought(plan)
    aggregate = Aggregate(
        lambda: _statuses(supervisor, urls) | {n: b.status for n, b in brought.items()}, telemetry.prometheus
    )
    stop = _on_signals(supervisor)
    work = asyncio.create_task(_work(plan, supervisor, aggregate))
    watches = [asyncio.create_task(watch.disk(plan.settings.data, say))]
    watches += [asyncio.create_task(one.watch(say)) for one in brought.values()]
    try:
        await asyncio.wait((work, stop), return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            await work
    except ProcessError as error:
        raise Failed(Exit.GAVE_UP, str(error)) from None
    finally:
        for task in (work, *watches):
            task.cancel()
        await asyncio.gather(work, *watches, return_exceptions=True)
        aggregate.ready = False
        await supervisor.stop(*pipeline.stop_groups(plan.instances))
        await aggregate.stop()
        telemetry.shutdown()


def _brought(plan: Plan) -> dict[str, watch.Brought]:
    """The user's own broker and store, by the names that they have where ``kaption up`` runs them."""
    out = {}
    if plan.broker is None:
        out[BROKER] = watch.broker(plan.settings)
    if plan.store is None:
        out[STORE] = watch.store(plan.settings)
    return out


async def _work(plan: Plan, supervisor: Supervisor, aggregate: Aggregate) -> None:
    try:
        port = await aggregate.start(LOOPBACK, plan.http_port)
    except OSError as error:
        what = f"port {plan.http_port} can't be listened on ({error.strerror})"
        raise Failed(Exit.IN_USE, f"{what}: give another with --http-port") from None
    if plan.store is not None:
        supervisor.start(plan.store)
    else:
        await _buckets(plan)
    await _broker_ready(plan, supervisor)
    for one in plan.instances:
        if STORE not in one.service.needs:
            supervisor.start(one.spec)
    if plan.store is not None:
        await supervisor.wait_ready(STORE)
        await _buckets(plan)
    for one in plan.instances:
        if STORE in one.service.needs:
            supervisor.start(one.spec)
    await supervisor.wait_ready()
    aggregate.ready = True
    click.echo(f"ready kafka={plan.settings.kafka} s3={plan.settings.s3} http=http://{LOOPBACK}:{port}")
    await supervisor.failed()


async def _buckets(plan: Plan) -> None:
    """Create both buckets in a store that we started. In a user's store, check that they exist."""
    try:
        if plan.store is not None:
            await embedded_s3.create_buckets(plan.settings)
        elif missing := await embedded_s3.missing_buckets(plan.settings):
            what = f"the object store at {plan.settings.s3} has no bucket {' and no bucket '.join(missing)}"
            raise Failed(Exit.CONFIG, f"{what}: create it, or set KAPTION_MEDIA_BUCKET and KAPTION_WORK_BUCKET")
    except StoreRefusedError as error:
        raise Failed(Exit.REFUSED, f"{error}: check KAPTION_S3_ACCESS_KEY and KAPTION_S3_SECRET_KEY") from None
    except StoreError as error:
        raise Failed(Exit.UNAVAILABLE, f"{error}: start it, or use --s3 embedded") from None


async def _broker_ready(plan: Plan, supervisor: Supervisor) -> None:
    if plan.broker is not None:
        supervisor.start(plan.broker)
        await supervisor.wait_ready(BROKER)
    async with broker(plan.settings):
        await topics.create(plan.settings)


def _on_signals(supervisor: Supervisor) -> "asyncio.Future[None]":
    """A future that is done at the first SIGTERM or SIGINT. A second signal kills every child at once."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[None] = loop.create_future()

    def on_signal() -> None:
        if stop.done():
            say("killing what has not stopped yet")
            supervisor.kill()
        else:
            say("stopping")
            stop.set_result(None)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop


def _statuses(supervisor: Supervisor, urls: dict[str, str]) -> dict[str, Status]:
    return {
        child.spec.name: Status(child.pid is not None, child.was_ready, child.restarts, urls.get(child.spec.name))
        for child in supervisor.children
    }
