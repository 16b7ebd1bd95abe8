"""docs/security.md, ACLs: the table there is what Kaption and a tenant need, and a tenant reaches nothing beyond it (promise 7)."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from pydantic import SecretStr

from kaption.adapters.kafka import topics
from kaption.adapters.kafka.clients import Consumer, security
from kaption.adapters.settings import Settings
from kaption.service.services import SERVICES
from kaption.testing.brokers import ROOT, ApacheNode
from kaption.testing.pipeline import agent, frames, publish, ready
from kaption_schemas.topics import ACCEPTED, EVENTS, FINAL, LIVE, TOPICS, topic_name
from tests.conftest import MakeSettings
from tests.support.pool import speech

pytestmark = pytest.mark.apache

AsUser = Callable[[str], Settings]
USERS = {"Kaption": "kaption", "a publisher of a tenant": "acme-in", "a reader of a tenant": "acme-out"}
STAGES = [one for one in SERVICES if one.stages == "staged"]
RESOURCES = {
    "topics": ResourceType.TOPIC,
    "groups": ResourceType.GROUP,
    "transactional ids": ResourceType.TRANSACTIONAL_ID,
}
SASL = (
    "listener.security.protocol.map=CLIENT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
    "sasl.enabled.mechanisms=SCRAM-SHA-256",
    "sasl.mechanism.inter.broker.protocol=SCRAM-SHA-256",
    "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users=User:admin;User:ANONYMOUS",
    "listener.name.client.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule"
    ' required username="admin" password="admin";',
)


def bindings(group: str) -> list[AclBinding]:
    """The table of the page as Kafka's ACLs, for the tenants default and acme."""
    page = (ROOT / "docs" / "security.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", page.split("## ACLs")[1].split("## ")[0], re.MULTILINE)
    found = []
    for user, resources, operations in rows:
        if user not in USERS:
            continue
        for part in resources.split(";"):
            kind = next(kind for name, kind in RESOURCES.items() if part.strip().startswith(name))
            names = re.findall(r"`([^`]+)`", part)
            for name, operation in product(names, re.findall(r"[A-Z_]{4,}", operations)):
                resolved = name.replace("<group>", group).replace("<tenant>", "acme")
                found.append((USERS[user], kind, resolved, AclOperation[operation]))
    return [
        AclBinding(kind, name, ResourcePatternType.PREFIXED, f"User:{user}", "*", operation, AclPermissionType.ALLOW)
        for user, kind, name, operation in found
        if operation.name not in _NOT_FOR.get(kind, ())
    ]


def bindings_of_stages(group: str) -> list[AclBinding]:
    """A user a stage, who may do what its row of the table of services says."""
    out = []
    for one in STAGES:
        what = [(topic, AclOperation.READ) for topic in one.reads] + [
            (topic, AclOperation.WRITE) for topic in one.writes
        ]
        granted = {
            (ResourceType.TOPIC, topic_name(topic, tenant), operation)
            for topic, use in what
            for tenant in ("default", "acme")
            for operation in (use, AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS)
        } | {(ResourceType.GROUP, f"{group}.{one.group}", AclOperation.READ)}
        out += [
            AclBinding(
                kind, name, ResourcePatternType.LITERAL, f"User:{one.name}", "*", operation, AclPermissionType.ALLOW
            )
            for kind, name, operation in granted
        ]
    return out


#: CREATE is a topic's; a group and a transactional id are made by their use.
_NOT_FOR = {ResourceType.GROUP: ("CREATE", "WRITE"), ResourceType.TRANSACTIONAL_ID: ("CREATE", "READ")}


@pytest.fixture(scope="module")
async def broker(apache_home: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ApacheNode]:
    users = ("admin", *USERS.values(), *(one.name for one in STAGES))
    node = ApacheNode(apache_home, tmp_path_factory.mktemp("sasl"), SASL, [f"{user}={user}" for user in users])
    node.child.spawn()
    yield node
    node.kill()


@pytest.fixture(scope="module")
def group() -> str:
    return "kaption-acl-test"


@pytest.fixture(scope="module")
async def granted(broker: ApacheNode, group: str) -> ApacheNode:
    admin = AdminClient(
        {
            "bootstrap.servers": broker.bootstrap,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "SCRAM-SHA-256",
            "sasl.username": "admin",
            "sasl.password": "admin",
            "log_level": 0,
        }
    )

    def grant() -> None:
        end = time.monotonic() + 60
        while True:  # the node is starting
            try:
                admin.list_topics(timeout=2)
                break
            except Exception:  # noqa: BLE001  # confluent-kafka has one exception for all
                assert time.monotonic() < end, broker.child.output()
        for done in admin.create_acls([*bindings(group), *bindings_of_stages(group)]).values():
            done.result(30)

    await asyncio.to_thread(grant)
    return broker


@pytest.fixture
def as_user(granted: ApacheNode, group: str, make_settings: MakeSettings) -> AsUser:
    def settings(user: str) -> Settings:
        return make_settings(
            granted, group=group, tenants="default,acme", kafka_security="SASL_PLAINTEXT", kafka_username=user,
            kafka_password=SecretStr(user),
        )  # fmt: skip

    return settings


@asynccontextmanager
async def running(client: Any) -> AsyncIterator[Any]:  # aiokafka ships no types
    """A started client, stopped also where its start was refused."""
    try:
        await client.start()
        yield client
    finally:
        await client.stop()


async def send(settings: Settings, topic: str) -> None:
    async with running(AIOKafkaProducer(**security(settings))) as producer:
        await producer.send_and_wait(topic, b"value", key=b"key")


async def read(settings: Settings, topic: str, group: str | None = None) -> bytes:
    options = security(settings) | {"group_id": group, "auto_offset_reset": "earliest"}
    async with running(AIOKafkaConsumer(topic, **options)) as consumer:
        return bytes((await asyncio.wait_for(consumer.getone(), 20)).value)


async def send_in_a_transaction(settings: Settings, topic: str) -> None:
    own = AIOKafkaProducer(**security(settings), transactional_id=settings.transactional_id(LIVE.name, 0))
    async with running(own) as producer, producer.transaction():
        await producer.send_and_wait(topic, b"value")


async def test_kaption_creates_its_topics_and_writes_in_transactions(as_user: AsUser, group: str) -> None:
    settings = as_user("kaption")
    await topics.create(settings)
    await topics.ensure(settings, *TOPICS)
    await send_in_a_transaction(settings, topic_name(FINAL, "acme"))
    await send(settings, LIVE.name)
    assert await read(settings, LIVE.name, f"{group}.pool") == b"value"


async def test_a_tenant_publishes_and_reads_its_own_and_nothing_else(as_user: AsUser, group: str) -> None:
    await topics.create(as_user("kaption"))
    await send(as_user("acme-in"), topic_name(EVENTS, "acme"))
    await send(as_user("kaption"), topic_name(FINAL, "acme"))
    assert await read(as_user("acme-out"), topic_name(FINAL, "acme"), "acme.reader") == b"value"
    for topic in (EVENTS.name, LIVE.name, topic_name(FINAL, "acme")):
        with pytest.raises(TopicAuthorizationFailedError):
            await send(as_user("acme-in"), topic)
    for topic in (FINAL.name, LIVE.name, topic_name(EVENTS, "acme")):
        with pytest.raises(TopicAuthorizationFailedError):
            await read(as_user("acme-out"), topic, "acme.reader")
    with pytest.raises(GroupAuthorizationFailedError):
        await read(as_user("acme-out"), topic_name(FINAL, "acme"), f"{group}.pool")


async def test_a_wrong_password_is_refused(as_user: AsUser) -> None:
    settings = as_user("kaption").model_copy(update={"kafka_password": SecretStr("wrong")})
    with pytest.raises(KafkaError):
        await send(settings, LIVE.name)


@pytest.mark.timeout(180)
async def test_each_stage_needs_what_its_row_says_and_reaches_nothing_else(as_user: AsUser, tmp_path: Path) -> None:
    kaption = as_user("kaption").model_copy(update={"stages": "staged"})
    await topics.create(kaption)
    children = [agent(as_user(one.name), tmp_path / f"{one.name}.log", *one.arguments) for one in STAGES]
    for child in children:
        child.spawn()
    try:
        for child in children:
            await ready(child)
        pcm, rate = speech("harbour-2-slt", 1)
        run = frames("call", f"01K{'0' * 22}9", pcm, rate)
        await publish(kaption, run, per_second=100)
        async with running(Consumer(**security(kaption), auto_offset_reset="earliest")) as consumer:
            consumer.assign([TopicPartition(LIVE.name, number) for number in range(kaption.partitions)])
            found = 0
            async with asyncio.timeout(30):
                while found < len(run):
                    found += sum(map(len, (await consumer.getmany(timeout_ms=200)).values()))
    finally:
        for child in children:
            child.stop()
    for user, topic in (("validate", LIVE), ("redact", EVENTS), ("chunk", EVENTS), ("chunk", ACCEPTED)):
        with pytest.raises(TopicAuthorizationFailedError):
            await read(as_user(user), topic.name)
