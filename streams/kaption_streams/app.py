"""Makes the Faust app of an agent process, reads records from it for the stages, and writes results to topics."""

import logging
import time
from collections.abc import Awaitable, Mapping
from typing import Any

import aiokafka
import faust
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, EventT

from kaption.adapters.kafka.clients import adopt, security
from kaption.adapters.kafka.members import client_id
from kaption.adapters.settings import Settings
from kaption_schemas.codec import Message, Origin
from kaption_schemas.topics import MIB, Owner, Topic, tenant_of, tenant_of_key, topic_name
from kaption_streams.reading import RoomConsumer

log = logging.getLogger(__name__)


class _Thread(driver.AIOKafkaConsumerThread):
    def _create_consumer(self, loop: Any) -> Any:
        consumer = super()._create_consumer(loop)
        adopt(consumer)
        return consumer


class _Consumer(RoomConsumer):
    """Goes back to the beginning of a partition without a committed offset.

    At a rebalance Faust drops fetched records and goes back to the committed offset. If there is none, or it is 0, Faust
    would read on after the dropped records, and later commit past them (HAZARDS, faust 15).
    """

    def _new_consumer_thread(self) -> Any:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        committed = await super().seek_to_committed()
        new = [tp for tp, offset in committed.items() if not offset]
        if new:
            for tp, offset in (await self.earliest_offsets(*new)).items():
                await self.seek(tp, offset)
        return committed


class _Transport(driver.Transport):
    Consumer = _Consumer


class _Stateless(faust.App):
    """An app without tables. It makes no folder for them in the working directory, which may be read-only."""

    def _create_directories(self) -> None:
        pass

    def _new_transport(self) -> Any:
        return _Transport(self.conf.broker_consumer, self)


def make_app(settings: Settings, name: str) -> faust.App:
    """Make a Faust app of consumer group ``<group>.<name>``: bytes in, bytes out, without Faust's web server or files."""
    return _Stateless(
        f"{settings.group}.{name}",
        broker=[f"kafka://{server}" for server in settings.kafka.split(",")],
        broker_client_id=client_id(name),
        broker_credentials=_credentials(settings),
        store="memory://",
        topic_disable_leader=True,
        topic_allow_declare=False,
        value_serializer="raw",
        key_serializer="raw",
        web_enabled=False,
        stream_buffer_maxsize=128,
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=settings.session_timeout_ms / 1000,
        # With Faust's default of 60 s, a successor would wait too long for a killed member.
        broker_rebalance_timeout=settings.session_timeout_ms / 1000,
        broker_heartbeat_interval=settings.session_timeout_ms / 5000,
        broker_commit_interval=1.0,
        producer_acks=-1,
        producer_max_request_size=3 * MIB,
        producer_linger=0.005,
        logging_config={"version": 1, "disable_existing_loggers": False},
    )


def _credentials(settings: Settings) -> Any:  # Faust ships no types
    if settings.kafka_security == "PLAINTEXT":
        return None
    options = security(settings)
    if settings.kafka_security == "SSL":
        return faust.SSLCredentials(options["ssl_context"])
    return faust.SASLCredentials(
        username=options["sasl_plain_username"],
        password=options["sasl_plain_password"],
        mechanism=options["sasl_mechanism"],
        ssl_context=options.get("ssl_context"),
    )


def input_topic(app: faust.App, settings: Settings, topic: Topic) -> Any:  # Faust ships no types
    """The channel of ``topic`` for every tenant. Faust cannot subscribe by pattern."""
    names = sorted({topic_name(topic, tenant) for tenant in settings.tenants})
    return app.topic(*names, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")


def origin_of(event: EventT[Any], topic: Topic) -> Origin:
    """The record of an event, with its headers unchanged, including repeated ones."""
    message = event.message
    headers = message.headers
    pairs: Any = headers.items() if isinstance(headers, dict) else headers or ()
    tenant = tenant_of(message.topic, topic) if topic.owner is Owner.EDGE else tenant_of_key(message.key)
    return Origin(
        tenant, message.topic, message.partition, message.offset,
        round(message.timestamp * 1000), message.key, message.value, tuple(pairs),
    )  # fmt: skip


def now_ms() -> int:
    """Milliseconds since 1970, for the time of a refusal."""
    return round(time.time() * 1000)


class Output:
    """The agents' own producer, with which they control keys, headers and deliveries (HAZARDS, faust 4)."""

    def __init__(self, settings: Settings) -> None:
        self._options = security(settings)
        self._producer: aiokafka.AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Connect."""
        self._producer = aiokafka.AIOKafkaProducer(
            **self._options, enable_idempotence=True, max_request_size=3 * MIB, linger_ms=5, request_timeout_ms=120_000
        )
        await self._producer.start()

    async def stop(self) -> None:
        """Deliver pending records, and disconnect."""
        if self._producer is not None:
            await self._producer.stop()

    async def send(self, message: Message) -> Awaitable[Any]:
        """Queue one record. The returned awaitable is its delivery."""
        if self._producer is None:
            raise RuntimeError("start() comes before send()")
        delivery: Awaitable[Any] = await self._producer.send(
            message.topic, key=message.key, value=message.value, headers=list(message.headers)
        )
        return delivery
