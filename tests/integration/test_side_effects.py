"""Whoever imports Kaption keeps his own Kafka clients as they are, in the same process."""

import subprocess
import sys

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import NoError
from aiokafka.structs import ConsumerRecord

from kaption.adapters.kafka.clients import Consumer, security
from kaption.testing.brokers import Broker
from kaption.testing.topics import create_topics
from kaption_schemas.topics import EVENTS
from tests.conftest import MakeSettings
from tests.support.batches import batch, signed, write

#: Prints what of aiokafka is another object once the modules that its arguments name are imported.
LOOK = """
import importlib, inspect, pkgutil, sys
import aiokafka

for module in pkgutil.walk_packages(aiokafka.__path__, "aiokafka."):
    importlib.import_module(module.name)

def held():
    out = {}
    for name, module in sorted(sys.modules.items()):
        if name.partition(".")[0] == "aiokafka":
            for at, value in vars(module).items():
                out[name, at] = value
                if inspect.isclass(value):
                    out |= {(name, at, inner): part for inner, part in vars(value).items()}
    return out

before = held()
for name in sys.argv[1:]:
    importlib.import_module(name)
after = held()
print([key for key in before.keys() | after.keys() if before.get(key) is not after.get(key)])
"""


@pytest.mark.parametrize(
    "modules",
    [
        ("kaption", "kaption.client.publisher", "kaption.client.transcripts"),
        ("kaption_streams.__main__", "kaption_gpu.__main__", "kaption.cli.main", "kaption.cli.up"),
    ],
)
def test_importing_kaption_replaces_nothing_of_aiokafka(modules: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-c", LOOK, *modules], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def first(consumer: AIOKafkaConsumer) -> ConsumerRecord:
    async with consumer:
        consumer.assign([TopicPartition(EVENTS.name, 0)])
        (records,) = (await consumer.getmany(timeout_ms=10_000)).values()
        return records[0]


async def test_a_consumer_of_ones_own_is_aiokafkas_beside_ours(kafka: Broker, make_settings: MakeSettings) -> None:
    """A header name that is no UTF-8 comes readable to ours, and raises in aiokafka's, as it does without Kaption."""
    settings = make_settings(kafka, partitions=1)
    await create_topics(settings)
    odd = batch([b"x"], 0, [("name", b"1")])
    at = odd.rindex(b"name")
    odd[at : at + 4] = b"\xff\xfe\xff\xfe"
    assert await write(settings.kafka, EVENTS.name, signed(odd)) is NoError
    assert (await first(Consumer(**security(settings), auto_offset_reset="earliest"))).headers == (
        ("\ufffd" * 4, b"1"),
    )
    with pytest.raises(UnicodeDecodeError):
        await first(AIOKafkaConsumer(**security(settings), auto_offset_reset="earliest"))
