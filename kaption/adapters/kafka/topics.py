"""Creates the topic map of ``kaption_schemas.topics`` on a broker, and compares the two before a process starts.

It never changes an existing topic: it reports a difference with the command that corrects it.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any
from typing import Final as Const

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    InvalidReplicationFactorError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    NodeNotReadyError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)

from kaption.adapters.kafka.clients import security
from kaption.adapters.settings import Settings
from kaption_schemas.errors import TopicsError
from kaption_schemas.topics import BATCH, FINAL, LIVE, PARTIAL, STATE, Topic, topics_for

log = logging.getLogger(__name__)

_SECONDS: Const = 30.0
_AGAIN_SECONDS: Const = 1.0
_MISSES: Const = 3
#: In these topics a partition number names the same lane, so their partition counts must be equal.
_LANED: Const = (LIVE.name, BATCH.name, STATE.name)
_MIN_ISR: Const = "min.insync.replicas"
_OUTPUTS: Const = (PARTIAL.name, FINAL.name)


@dataclass(frozen=True, slots=True)
class Problem:
    """One difference between the map and the broker: the topic, what is wrong, and what to do."""

    topic: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.topic}: {self.what}. {self.remedy}"


@dataclass(frozen=True, slots=True)
class Described:
    """A topic as the broker has it; ``partitions`` is 0 if it does not exist."""

    partitions: int
    config: dict[str, str]


def wanted(settings: Settings) -> dict[str, Topic]:
    """Return every topic of a deployment with these settings, by its name on the broker."""
    return topics_for(settings.tenants, staged=settings.stages == "staged")


def compare(settings: Settings, found: dict[str, Described]) -> tuple[Problem, ...]:
    """Return the differences between the map and ``found``, in the map's order. Operators may choose the retention."""
    problems: list[Problem] = []
    laned = (found[name].partitions for name in _LANED if name in found)
    lanes = next(filter(None, laned), settings.partitions)
    for name, topic in wanted(settings).items():
        described = found.get(name)
        if described is None or not described.partitions:
            problems.append(Problem(name, "the topic does not exist", "Run `kaption topics create`."))
            continue
        problems += _partition_problems(name, topic, described.partitions, lanes)
        problems += _config_problems(name, topic, described.config)
    return tuple(problems)


def _partition_problems(name: str, topic: Topic, partitions: int, lanes: int) -> list[Problem]:
    if topic.name in _LANED and partitions != lanes:
        remedy = (
            f"{', '.join(_LANED)} need equal counts, since a partition number is one lane: with every process stopped and "
            "the topics drained, delete the three and run `kaption topics create`."
        )
        return [Problem(name, f"it has {partitions} partitions and {LIVE.name} has {lanes}", remedy)]
    if topic.name in _OUTPUTS and lanes % partitions:
        remedy = "An output's count must divide the audio topics' count: delete it and run `kaption topics create`."
        return [Problem(name, f"its {partitions} partitions do not divide the {lanes} of {LIVE.name}", remedy)]
    return []


def _config_problems(name: str, topic: Topic, config: dict[str, str]) -> list[Problem]:
    problems = []
    if topic.append_time and config.get("message.timestamp.type") != "LogAppendTime":
        what = "message.timestamp.type is not LogAppendTime, so latency would be the publishers' claim"
        problems.append(Problem(name, what, _alter(name, "message.timestamp.type=LogAppendTime")))
    size = int(config.get("max.message.bytes", "0"))
    if size < topic.max_bytes:
        what = f"max.message.bytes is {size} and must be at least {topic.max_bytes}"
        problems.append(Problem(name, what, _alter(name, f"max.message.bytes={topic.max_bytes}")))
    policy = set(config.get("cleanup.policy", "delete").replace(" ", "").split(","))
    if policy != set(topic.cleanup.split(",")):
        what = f"cleanup.policy is {','.join(sorted(policy))} and must be {topic.cleanup}"
        problems.append(Problem(name, what, _alter(name, f"cleanup.policy=[{topic.cleanup}]")))
    return problems


def _min_isr(settings: Settings) -> int:
    """Return the fewest copies of an acknowledged record: all but one, so that one broker may be away."""
    return max(1, settings.replication - 1)


def _durability(settings: Settings, found: dict[str, Described]) -> tuple[Problem, ...]:
    """Find replicated topics that may acknowledge a record before it is copied. A start does not refuse them."""
    most = _min_isr(settings)
    return tuple(
        Problem(
            name,
            f"{_MIN_ISR} is {described.config[_MIN_ISR]}, so a record is acknowledged before {most} brokers have it",
            _alter(name, f"{_MIN_ISR}={most}"),
        )
        for name, described in found.items()
        if int(described.config.get(_MIN_ISR) or most) < most
    )


def _alter(name: str, setting: str) -> str:
    return f"Run `kafka-configs.sh --bootstrap-server ... --alter --topic {name} --add-config {setting}`."


async def check(settings: Settings) -> tuple[Problem, ...]:
    """Compare the broker's topics with the map; empty when all is well.

    Raises ``aiokafka.errors.KafkaError`` or ``OSError`` when the broker does not answer.
    """
    async with _Admin(settings) as admin:
        found = await _describe(admin, settings)
    return compare(settings, found) + _durability(settings, found)


async def ensure(settings: Settings, *topics: Topic) -> None:
    """Wait at a process's start for the broker, and raise ``TopicsError`` unless these topics match the map.

    Raises ``KafkaError`` if the broker refuses to describe them.
    """
    names = {name for name, topic in wanted(settings).items() if topic in topics}
    misses = 0
    while True:
        try:
            async with _Admin(settings) as admin:
                found = await _describe(admin, settings)
        except (KafkaConnectionError, KafkaTimeoutError, NodeNotReadyError, OSError, TimeoutError) as error:
            log.warning("broker_awaited", extra={"error": type(error).__name__})
        else:
            problems = tuple(problem for problem in compare(settings, found) if problem.topic in names)
            if not problems:
                return
            # A partition without a leader counts as missing; it has one a moment later.
            misses += 1
            if misses == _MISSES:
                raise TopicsError(problems)
        await asyncio.sleep(_AGAIN_SECONDS)


async def create(settings: Settings) -> tuple[str, ...]:
    """Create the missing topics, wait for their leaders, and return their names.

    Raises ``TopicsError`` if one can't be created, or an existing one differs from the map.
    """
    async with _Admin(settings) as admin:
        existing = set(await admin.list_topics())
        missing = {name: topic for name, topic in wanted(settings).items() if name not in existing}
        if missing:
            await _create(admin, settings, missing)
        found = await _settled(admin, settings)
        problems = compare(settings, found) + _durability(settings, found)
    if problems:
        raise TopicsError(problems)
    return tuple(missing)


async def _create(admin: AIOKafkaAdminClient, settings: Settings, missing: dict[str, Topic]) -> None:
    durable = {_MIN_ISR: str(_min_isr(settings))} if settings.replication > 1 else {}
    new = [
        NewTopic(name, settings.partitions, settings.replication, topic_configs=topic.config() | durable)
        for name, topic in missing.items()
    ]
    response = await admin.create_topics(new)
    failed = []
    for name, code, *_ in response.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:  # another process was faster
            failed.append(
                Problem(name, f"the broker refuses to create it ({error.__name__})", _refusal(error, settings))
            )
    if failed:
        raise TopicsError(tuple(failed))


def _refusal(error: type[KafkaError], settings: Settings) -> str:
    if error is TopicAuthorizationFailedError:
        return (
            f"Grant CREATE and DESCRIBE to user {settings.kafka_username!r}, or create the topics as an administrator."
        )
    if error is InvalidReplicationFactorError:
        return f"Set KAPTION_REPLICATION to at most the number of brokers; it is {settings.replication}."
    return "See the broker's log."


async def _settled(admin: AIOKafkaAdminClient, settings: Settings) -> dict[str, Described]:
    """Describe the topics once every new one has its leaders; a broker elects them in the background."""
    async with asyncio.timeout(_SECONDS):
        while True:
            found = await _describe(admin, settings)
            if wanted(settings).keys() <= found.keys():
                return found
            await asyncio.sleep(0.1)


async def _describe(admin: AIOKafkaAdminClient, settings: Settings) -> dict[str, Described]:
    # Describe only topics that exist: a metadata request for another may create it.
    names = sorted(set(await admin.list_topics()) & wanted(settings).keys())
    if not names:
        return {}
    partitions = {
        topic["topic"]: len(topic["partitions"])
        for topic in await admin.describe_topics(names)
        if not topic["error_code"] and all(part["leader"] >= 0 for part in topic["partitions"])
    }
    configs = await _configs(admin, names)
    return {name: Described(count, configs[name]) for name, count in partitions.items() if name in configs}


async def _configs(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    responses = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
    out: dict[str, dict[str, str]] = {}
    for response in responses:
        for resource in response.to_object()["resources"]:
            if for_code(resource["error_code"]) is UnknownTopicOrPartitionError:
                continue  # just created, and this node of the cluster does not know it yet
            if resource["error_code"]:
                raise for_code(resource["error_code"])(f"reading the configuration of {resource['resource_name']}")
            entries: list[dict[str, Any]] = resource["config_entries"]
            out[resource["resource_name"]] = {e["config_names"]: e["config_value"] or "" for e in entries}
    return out


async def partition_count(settings: Settings, name: str) -> int:
    """Return the number of partitions of a topic; 0 if it does not exist. Raises ``KafkaError``."""
    async with _Admin(settings) as admin:
        if name not in await admin.list_topics():
            return 0
        (topic,) = await admin.describe_topics([name])
        return len(topic["partitions"])


class _Admin:
    """An admin client that closes itself, also after an error."""

    def __init__(self, settings: Settings) -> None:
        self._client = AIOKafkaAdminClient(**security(settings), request_timeout_ms=int(_SECONDS * 1000))

    async def __aenter__(self) -> AIOKafkaAdminClient:
        try:
            await self._client.start()
        except BaseException:
            await self._client.close()
            raise
        return self._client

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()
