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
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
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
from kaption.adapters.kafka.clients import security
from kaption.adapters.settings import Settings
from kaption.testing.brokers import ROOT, ApacheNode
from kaption_schemas.topics import EVENTS, FINAL, LIVE, TOPICS, topic_name
from tests.conftest import MakeSettings

pytestmark = pytest.mark.apache

AsUser = Callable[[str], Settings]
USERS = {"Kaption": "kaption", "a publisher of a tenant": "acme-in", "a reader of a tenant": "acme-out"}
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


#: CREATE is a topic's; a group and a transactional id are made by their use.
_NOT_FOR = {ResourceType.GROUP: ("CREATE", "WRITE"), ResourceType.TRANSACTIONAL_ID: ("CREATE", "READ")}


@pytest.fixture(scope="module")
async def broker(apache_home: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ApacheNode]:
    users = ("admin", *USERS.values())
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
        for done in admin.create_acls(bindings(group)).values():
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


async def read(settings: Settings, topic: str, group: str) -> bytes:
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
