"""Record batches as no client makes them, and a way to put them on a topic."""

import asyncio
import struct
from collections.abc import Sequence
from typing import Final as Const

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

#: Kafka's numbers of its codecs.
CODECS: Const = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
_CRC_AT: Const = 17
_SIGNED_FROM: Const = 21
_ATTRIBUTES_AT: Const = 21
Headers = list[tuple[str, bytes | None]]


def batch(
    values: Sequence[bytes | None], codec: int = 0, headers: Headers | None = None, key: bytes = b"k", base: int = 0
) -> bytearray:
    """A batch of format 2 as a broker keeps it, its first record at offset ``base``."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=codec, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1,
        batch_size=1 << 30,
    )  # fmt: skip
    for number, value in enumerate(values):
        assert builder.append(number, 1000 + number, key, value, headers or []) is not None
    data = bytearray(builder.build())
    struct.pack_into(">q", data, 0, base)
    return signed(data)


def signed(data: bytearray) -> bytearray:
    """The batch, with the length and the checksum that its bytes have."""
    struct.pack_into(">i", data, 8, len(data) - 12)
    struct.pack_into(">I", data, _CRC_AT, calc_crc32c(bytes(data[_SIGNED_FROM:])))
    return data


def with_codec(data: bytearray, codec: int) -> bytearray:
    """The batch, saying that it was compressed by ``codec``."""
    struct.pack_into(">h", data, _ATTRIBUTES_AT, codec)
    return signed(data)


async def write(bootstrap: str, topic: str, data: bytes | bytearray, partition: int = 0) -> type[KafkaError]:
    """Produce one batch as it is, and return how the broker found it (``NoError``, if it took it)."""
    client = AIOKafkaClient(bootstrap_servers=bootstrap)
    await client.bootstrap()
    try:
        return await put(client, topic, data, partition)
    finally:
        await client.close()


async def put(client: AIOKafkaClient, topic: str, data: bytes | bytearray, partition: int = 0) -> type[KafkaError]:
    """As ``write``, by a client that is connected already."""
    place = TopicPartition(topic, partition)
    if client.cluster.leader_for_partition(place) is None:
        await client.add_topic(topic)
    async with asyncio.timeout(20):
        while (node := client.cluster.leader_for_partition(place)) in (None, -1):
            await asyncio.sleep(0.1)
            await client.force_metadata_update()
        request = ProduceRequest(
            transactional_id=None, required_acks=-1, timeout=10_000, topics=[(topic, [(partition, bytes(data))])]
        )
        response = await client.send(node, request)
    (((_, ((_, code, *_),)),), *_) = (response.topics,)
    return for_code(code)  # type: ignore[no-any-return]  # aiokafka ships no types
