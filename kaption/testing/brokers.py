"""Starts the tests' three kinds of broker: embedded (noida-db), one node of Apache Kafka, and a cluster of three.

Apache Kafka comes from ``KAFKA_HOME``, or from ``../shared/kafka`` next to the checkout; ``kafka_home`` returns which.
"""

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from kaption.adapters.kafka.embedded import embedded
from kaption.adapters.processes.tcp_ports import free_port
from kaption.testing.processes import Child

ROOT = Path(__file__).resolve().parents[2]
# A node that restarts after SIGKILL waits until its last registration has expired, 9 s by default.
REGISTRATION = ("--set", "broker.session.timeout.ms=3000", "--set", "broker.heartbeat.interval.ms=500")
NO_APACHE = "Apache Kafka is not here: set KAFKA_HOME to a folder with `node` (see docs/testing.md)"


def kafka_home() -> Path | None:
    """Return the folder with Apache Kafka's ``node`` script, or None."""
    named = os.environ.get("KAFKA_HOME")
    home = Path(named) if named else ROOT.parent / "shared" / "kafka"
    return home.resolve() if (home / "node").is_file() else None


async def wait_ready(bootstrap: str, seconds: float = 60, nodes: int = 1, child: Child | None = None) -> None:
    """Wait until ``bootstrap`` answers a metadata request that names ``nodes`` brokers.

    Raises ``TimeoutError``, and ``RuntimeError`` with the output of ``child`` if that has ended.
    """
    end = time.monotonic() + seconds
    while True:
        if child is not None and not child.running:
            raise RuntimeError(f"the broker ended at start-up:\n{child.output()}")
        if await _brokers(bootstrap) >= nodes:
            return
        if time.monotonic() > end:
            raise TimeoutError(f"no broker at {bootstrap} after {seconds} s")
        await asyncio.sleep(0.1)


async def _brokers(bootstrap: str) -> int:
    """Return the number of brokers that answer at ``bootstrap``; 0 if none does."""
    host, port = bootstrap.split(",", maxsplit=1)[0].rsplit(":", 1)
    try:  # a closed port is the common case at start-up, and aiokafka logs an error for it
        _, writer = await asyncio.open_connection(host, int(port))
        writer.close()
        await writer.wait_closed()
    except OSError:
        return 0
    client = AIOKafkaClient(bootstrap_servers=bootstrap, request_timeout_ms=5000)
    try:
        await client.bootstrap()
        return len(client.cluster.brokers())
    except (KafkaError, OSError):
        return 0
    finally:
        await client.close()


class Broker(Protocol):
    """A broker that a test may crash: ``bootstrap`` for clients, ``durable`` if its data survives SIGKILL."""

    name: str
    bootstrap: str
    replication: int
    durable: bool

    async def start(self) -> None:
        """Start, or start again on the same data, and wait until it answers."""

    def stop(self) -> None:
        """Stop cleanly."""

    def kill(self) -> None:
        """Send SIGKILL, to one node if there are several."""


class EmbeddedBroker:
    """noida-db: ready within 0.1 s, so each test can have its own. It loses records at SIGKILL."""

    name = "embedded"
    replication = 1
    durable = False

    def __init__(self, data: Path, port: int = 0) -> None:
        """``data``: folder of its files; ``port`` 0 takes a free one."""
        command = embedded(data, port or free_port())
        self.bootstrap = command.bootstrap
        self.child = Child(command.argv, data / "noida.log")

    async def start(self) -> None:
        """See ``Broker``."""
        self.child.spawn()
        await wait_ready(self.bootstrap, 20, child=self.child)

    def stop(self) -> None:
        """See ``Broker``."""
        self.child.stop()

    def kill(self) -> None:
        """See ``Broker``."""
        self.child.kill()


class ApacheNode:
    """One node of Apache Kafka, broker and controller in one; ready in about five seconds, 256 MiB of heap."""

    name = "apache"
    replication = 1
    durable = True

    def __init__(self, home: Path, data: Path, settings: Sequence[str] = (), scram: Sequence[str] = ()) -> None:
        """``settings`` are ``KEY=VALUE`` of the broker, ``scram`` are ``USER=PASSWORD``."""
        self.port = free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        argv = [str(home / "node"), "--data", str(data), "--port", str(self.port)]
        argv += ["--controller-port", str(free_port()), *REGISTRATION]
        argv += [part for pair in settings for part in ("--set", pair)]
        argv += [part for pair in scram for part in ("--scram", pair)]
        self.child = Child(argv, data / "node.log", {"KAFKA_HEAP": "256m"})

    async def start(self) -> None:
        """See ``Broker``; with SASL, wait for the port and connect with credentials yourself."""
        self.child.spawn()
        await wait_ready(self.bootstrap, 60, child=self.child)

    def stop(self) -> None:
        """See ``Broker``."""
        self.child.stop(30)

    def kill(self) -> None:
        """See ``Broker``."""
        self.child.kill()


class ApacheCluster:
    """Three nodes, replication 3, two in-sync replicas: the shape of production. Ready in about eight seconds."""

    name = "cluster"
    replication = 3
    durable = True

    def __init__(self, home: Path, data: Path) -> None:
        """Each node has its own folder below ``data``."""
        controllers = [free_port() for _ in range(3)]
        self.ports = [free_port() for _ in range(3)]
        self.bootstrap = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        voters = ",".join(f"{number}@127.0.0.1:{port}" for number, port in enumerate(controllers, 1))
        self.nodes = [
            Child(
                [
                    *(str(home / "node"), "--id", str(number), "--voters", voters),
                    *("--port", str(port), "--controller-port", str(controller), "--data", str(data / str(number))),
                    *REGISTRATION,
                ],
                data / f"node{number}.log",
                {"KAFKA_HEAP": "256m"},
            )
            for number, (port, controller) in enumerate(zip(self.ports, controllers, strict=True), 1)
        ]

    async def start(self) -> None:
        """Start the nodes that are down, and wait for all three."""
        for node in self.nodes:
            if not node.running:
                node.spawn()
        await wait_ready(self.bootstrap, 90, nodes=3, child=self.nodes[0])

    def stop(self) -> None:
        """Stop all three at once. The last of a quorum cannot stop cleanly, so the wait is short."""
        for node in self.nodes:
            node.signal(signal.SIGTERM)
        for node in self.nodes:
            node.stop(5)

    def kill(self, number: int = 0) -> None:
        """Send SIGKILL to one node; the other two continue."""
        self.nodes[number].kill()
