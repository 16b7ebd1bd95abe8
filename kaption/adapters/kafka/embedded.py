"""Runs a broker of this machine's own: noida-db for trying out, or one private node of Apache Kafka from KAFKA_HOME.

It knows how to start each and when it answers. ``kaption.adapters.processes.supervisor`` supervises the process.
"""

import asyncio
import importlib.util
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final as Const

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.protocol.metadata import MetadataRequest

from kaption.adapters.kafka.clients import security
from kaption.adapters.processes.tcp_ports import LOOPBACK, free_port
from kaption.adapters.settings import Settings
from kaption_schemas.errors import ProcessError

TRYING_OUT: Const = (
    "The embedded broker is for trying out: it keeps its log in memory and writes it to disk every few seconds, so records "
    "that it acknowledged are lost when it is killed. Use --kafka HOST:PORT, or --kafka apache, for anything you keep."
)


@dataclass(frozen=True, slots=True)
class BrokerCommand:
    """The start of a broker: its command line, additions to the environment, and its address.

    ``prepare``, if any, runs to its end before each start: it formats a new folder and leaves an old one as it is.
    """

    name: str
    argv: tuple[str, ...]
    bootstrap: str
    env: dict[str, str] = field(default_factory=dict)
    prepare: tuple[str, ...] = ()
    durable: bool = True


def embedded(data: Path, port: int) -> BrokerCommand:
    """Make the command for noida-db on loopback with files in ``data``. Raises ``ProcessError`` if it is not installed."""
    spec = importlib.util.find_spec("noida_db")
    if spec is None or spec.origin is None:
        raise ProcessError(
            "the embedded broker is not installed: pip install 'kaption[embedded]', or use --kafka HOST:PORT"
        )
    # The binary itself: the package's command would start it as a child that outlives its parent.
    binary = Path(spec.origin).with_name("noida-db")
    if not binary.is_file():
        raise ProcessError(f"the embedded broker has no program for this platform ({binary}); use --kafka HOST:PORT")
    if not os.access(binary, os.X_OK):
        binary.chmod(0o755)
    data.mkdir(parents=True, exist_ok=True)
    argv = (str(binary), "start", "--only", "kafka", "--host", LOOPBACK, "--kafka-port", str(port))
    return BrokerCommand("kafka", (*argv, "--data-dir", str(data)), f"{LOOPBACK}:{port}", durable=False)


def apache(home: Path | None, data: Path, port: int) -> BrokerCommand:
    """Make the command for one private node of Apache Kafka 4 in KRaft mode on loopback.

    ``home`` is an unpacked release (bin/kafka-server-start.sh), or a folder with an executable ``node`` that takes
    ``--data --port --controller-port``. Raises ``ProcessError`` if it or Java is missing.
    """
    if home is None:
        raise ProcessError("--kafka apache needs KAFKA_HOME: the folder of an unpacked Apache Kafka 4 release")
    if shutil.which("java") is None:
        raise ProcessError("--kafka apache needs Java 17 or later on the PATH")
    data.mkdir(parents=True, exist_ok=True)
    controller = free_port()
    bootstrap = f"{LOOPBACK}:{port}"
    node = home / "node"
    if os.access(node, os.X_OK) and node.is_file():
        argv = (str(node), "--data", str(data), "--port", str(port), "--controller-port", str(controller))
        return BrokerCommand("kafka", argv, bootstrap)
    start, storage = home / "bin/kafka-server-start.sh", home / "bin/kafka-storage.sh"
    if not (start.is_file() and storage.is_file()):
        raise ProcessError(
            f"KAFKA_HOME={home} holds no bin/kafka-server-start.sh: unpack an Apache Kafka 4 release there"
        )
    properties = data / "server.properties"
    properties.write_text(_properties(data, port, controller), encoding="utf-8")
    prepare = (str(storage), "format", "--ignore-formatted", "--cluster-id", _CLUSTER, "--config", str(properties))
    env = {"KAFKA_HEAP_OPTS": "-Xms128m -Xmx512m", "LOG_DIR": str(data / "logs")}
    return BrokerCommand("kafka", (str(start), str(properties)), bootstrap, env, prepare)


_CLUSTER: Const = "a2FwdGlvbi1vbmUtbm9kZQ"


def _properties(data: Path, port: int, controller: int) -> str:
    settings = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{LOOPBACK}:{controller}",
        "listeners": f"CLIENT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller}",
        "advertised.listeners": f"CLIENT://{LOOPBACK}:{port}",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "CLIENT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(data / "log"),
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": "0",
    }
    return "".join(f"{key}={value}\n" for key, value in settings.items())


async def answers(settings: Settings) -> bool:
    """Whether a broker of ``settings`` answers a metadata request now.

    Raises ``KafkaError`` if it refuses the credentials, since waiting won't help; never for a failed connection.
    """
    refused: KafkaError | None = None
    for host, port, _ in collect_hosts(settings.kafka):
        try:
            if await _answers(settings, host, port):
                return True
        except KafkaConnectionError:
            continue
        except KafkaError as error:
            refused = error
        except (OSError, TimeoutError):
            continue
    if refused is not None:
        raise refused
    return False


async def _answers(settings: Settings, host: str, port: int) -> bool:
    options = security(settings)
    del options["bootstrap_servers"]
    connection = await create_conn(host, port, request_timeout_ms=5000, **options)
    try:
        return bool((await connection.send(MetadataRequest([]))).brokers)
    finally:
        connection.close()


async def wait_ready(settings: Settings, seconds: float = 30) -> None:
    """Wait until a broker answers. Raises ``TimeoutError`` after ``seconds``, ``KafkaError`` if it refuses the user."""
    end = time.monotonic() + seconds
    while not await answers(settings):
        if time.monotonic() > end:
            raise TimeoutError(f"no Kafka broker answers at {settings.kafka}")
        await asyncio.sleep(0.1)
