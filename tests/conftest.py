"""Fixtures that several suites share: brokers, the object store, settings. Real parts only; nothing is patched."""

import itertools
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from kaption.adapters.processes.tcp_ports import free_port
from kaption.adapters.settings import Settings
from kaption.testing.brokers import NO_APACHE, ApacheCluster, ApacheNode, Broker, EmbeddedBroker, kafka_home
from kaption.testing.processes import Child
from kaption.testing.store import EmbeddedStore
from kaption.testing.topics import wipe_topics
from kaption.testing.up import share_choices

MakeSettings = Callable[..., Settings]
# Numbers and not random words, so that a failure names its group again in the next run.
_GROUPS = itertools.count()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="fail a test that skips: every part must be here")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and item.config.getoption("--no-skips"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which --no-skips forbids: {report.longrepr}"
    return report


def pytest_configure() -> None:
    """Two cores: a runtime that takes every core for each pool makes the timings of the tests meaningless."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    logging.getLogger("aiokafka").setLevel(logging.WARNING)
    # As with Ctrl-C: fixtures end what they started, where Python would leave at once.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """End what still runs when every fixture has ended; a run that left something fails."""
    for child in Child.started:
        if child.running:
            session.config.get_terminal_writer().line(f"\na test left this running: {' '.join(child.argv)}", red=True)
            child.kill()
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def port() -> int:
    """A free TCP port on loopback."""
    return free_port()


@pytest.fixture(scope="session")
async def embedded_kafka(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedBroker]:
    """One embedded broker for all tests that do not mind each other's topics."""
    broker = EmbeddedBroker(tmp_path_factory.mktemp("noida"))
    await broker.start()
    yield broker
    broker.stop()


@pytest.fixture
async def fresh_kafka(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    """An embedded broker of the test's own (ready within a tenth of a second), which it may stop and kill."""
    broker = EmbeddedBroker(tmp_path / "noida")
    await broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def apache_home() -> Path:
    """Where Apache Kafka is; skips, saying so, where it is not."""
    home = kafka_home()
    if home is None:
        pytest.skip(NO_APACHE)
    return home


@pytest.fixture(scope="session")
async def _apache(apache_home: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ApacheNode]:
    broker = ApacheNode(apache_home, tmp_path_factory.mktemp("apache"))
    await broker.start()
    yield broker
    broker.kill()  # its files are not read again, and a clean stop takes seconds


@pytest.fixture
async def apache_kafka(_apache: ApacheNode) -> ApacheNode:
    """One node of Apache Kafka without topics; the node is shared, and started again if a test left it dead."""
    if not _apache.child.running:
        await _apache.start()
    await wipe_topics(_apache.bootstrap)
    return _apache


@pytest.fixture(scope="session")
async def _cluster(apache_home: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ApacheCluster]:
    broker = ApacheCluster(apache_home, tmp_path_factory.mktemp("cluster"))
    await broker.start()
    yield broker
    for number in range(3):
        broker.kill(number)


@pytest.fixture
async def apache_cluster(_cluster: ApacheCluster) -> ApacheCluster:
    """Three nodes of Apache Kafka without topics. Mark tests that use it ``long``."""
    await _cluster.start()
    await wipe_topics(_cluster.bootstrap)
    return _cluster


@pytest.fixture(params=["embedded", pytest.param("apache", marks=pytest.mark.apache)])
def kafka(request: pytest.FixtureRequest) -> Broker:
    """A broker without topics, once embedded and once Apache Kafka."""
    broker: Broker = request.getfixturevalue("fresh_kafka" if request.param == "embedded" else "apache_kafka")
    return broker


@pytest.fixture(
    params=[
        "embedded",
        pytest.param("apache", marks=pytest.mark.apache),
        pytest.param("cluster", marks=[pytest.mark.apache, pytest.mark.long]),
    ]
)
def every_kafka(request: pytest.FixtureRequest) -> Broker:
    """As ``kafka``, and on the three nodes in ``make test-all``."""
    names = {"embedded": "fresh_kafka", "apache": "apache_kafka", "cluster": "apache_cluster"}
    broker: Broker = request.getfixturevalue(names[request.param])
    return broker


@pytest.fixture(scope="session")
async def store(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedStore]:
    """The embedded object store with its buckets; ``make_settings(broker, **store.fields)`` reaches it."""
    running = EmbeddedStore(tmp_path_factory.mktemp("store"))
    await running.start()
    yield running
    running.stop()


@pytest.fixture(
    params=[
        pytest.param("apache_kafka", marks=pytest.mark.apache, id="apache"),
        pytest.param("apache_cluster", marks=[pytest.mark.apache, pytest.mark.long], id="cluster"),
    ]
)
def durable_kafka(request: pytest.FixtureRequest) -> Broker:
    """A broker that survives SIGKILL: one node of Apache Kafka, and three in ``make test-all``."""
    broker: Broker = request.getfixturevalue(request.param)
    return broker


@pytest.fixture
def make_settings(tmp_path: Path) -> MakeSettings:
    """``make_settings(broker, field=value)``: settings with a group of the test's own, so that offsets start from nothing.

    ``broker`` is a ``Broker`` or None. Three partitions, since most tests look at few streams.
    """
    share_choices(tmp_path)

    def make(broker: Broker | None = None, **fields: Any) -> Settings:
        base: dict[str, Any] = {"group": f"test-{os.getpid()}-{next(_GROUPS)}", "partitions": 3, "data": tmp_path}
        if broker is not None:
            base |= {"kafka": broker.bootstrap, "replication": broker.replication}
        return Settings(**(base | fields))

    return make


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on what the developer has exported."""
    for name in [name for name in os.environ if name.startswith("KAPTION_")]:
        monkeypatch.delenv(name)
