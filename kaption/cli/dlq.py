"""``kaption dlq`` shows which records were refused and why, from the dead-letter topics.

A body holds a person's voice or text, so only ``show --body`` prints it.
"""

import asyncio
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import click
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord

from kaption.adapters.kafka.clients import Consumer, security
from kaption.adapters.kafka.topics import partition_count
from kaption.adapters.settings import Settings
from kaption.cli.exits import Exit, Failed, load_settings
from kaption.cli.reach import broker
from kaption_schemas.codec import read_dead_letter
from kaption_schemas.reasons import Reason
from kaption_schemas.topics import DEFAULT_TENANT, DLQ, topic_name

_KAFKA = click.option("--kafka", metavar="HOST:PORT", help="Bootstrap servers [KAPTION_KAFKA].")
_TENANT = click.option("--tenant", default=DEFAULT_TENANT, show_default=True, help="Tenant of the dead letters.")
_JSON = click.option("--json", "as_json", is_flag=True, help="As JSON, one object a line.")


@dataclass(frozen=True, slots=True)
class Listed:
    """One dead letter for display: its place, its origin, the reason and the size, but never its content.

    ``size`` is the original body's size in bytes; ``kept`` is how many of them the dead letter has.
    """

    at: str
    time: str
    reason: str
    stage: str
    topic: str
    partition: str
    offset: str
    stream: str
    size: int
    kept: int
    attempt: str
    headers: dict[str, str]

    def fields(self) -> dict[str, Any]:
        """For JSON, with the reason's meaning."""
        known = Reason.read(self.reason)
        return asdict(self) | {"meaning": known.meaning if known else ""}


def _printable(text: str, most: int = 200) -> str:
    """Return untrusted header text without control characters that a terminal would obey."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text[:most])


def describe(record: ConsumerRecord) -> Listed:
    """Describe a record of a dead-letter topic for display."""
    letter = read_dead_letter(record)
    return Listed(
        at=f"{record.partition}:{record.offset}",
        time=datetime.fromtimestamp(record.timestamp / 1000, UTC).isoformat(timespec="seconds"),
        reason=_printable(letter.reason),
        stage=_printable(letter.stage),
        topic=_printable(letter.topic),
        partition=_printable(letter.partition),
        offset=_printable(letter.offset),
        stream=_printable((record.key or b"").decode("utf-8", "replace"), 128),
        size=letter.body_bytes,
        kept=len(record.value or b""),
        attempt=_printable(letter.attempt),
        headers={name: _printable(value) for name, value in letter.headers.items()},
    )


@click.group()
def command() -> None:
    """See what was refused, and why.

    A dead letter keeps the record's bytes and headers as they came and adds errors.*: where it was and the reason code. Of a
    body that is too large for the topic it keeps the beginning, and the whole's size and SHA-256.
    """


@command.command("list")
@_KAFKA
@_TENANT
@click.option("--reason", type=click.Choice([str(reason) for reason in Reason]), help="Only this reason code.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Only this number of the newest.")
@_JSON
def list_(kafka: str | None, tenant: str, reason: str | None, limit: int, as_json: bool) -> None:
    """List dead letters, oldest first."""
    settings = load_settings(kafka=kafka)
    letters = asyncio.run(_list(settings, topic_name(DLQ, tenant), reason, limit))
    for letter in letters:
        if as_json:
            click.echo(json.dumps(letter.fields()))
        else:
            place = f"{letter.topic}/{letter.partition}@{letter.offset}"
            click.echo(
                f"{letter.at:>10}  {letter.time}  {letter.reason:20} {place:32} {letter.size:>9} B  {letter.stream}"
            )
    if not letters and not as_json:
        click.echo("no dead letters", err=True)


@command.command()
@click.argument("at", metavar="PARTITION:OFFSET")
@_KAFKA
@_TENANT
@click.option("--body", is_flag=True, help="Write the record's body, as it came, to stdout instead.")
@_JSON
def show(at: str, kafka: str | None, tenant: str, body: bool, as_json: bool) -> None:
    """Show one dead letter, named as `kaption dlq list` does."""
    partition, _, offset = at.partition(":")
    if not (partition.isdigit() and offset.isdigit()):
        raise click.BadParameter("must be PARTITION:OFFSET, for example 3:120", param_hint="AT")
    settings = load_settings(kafka=kafka)
    record = asyncio.run(_show(settings, TopicPartition(topic_name(DLQ, tenant), int(partition)), int(offset)))
    letter = describe(record)
    if body:
        if letter.kept < letter.size:
            what = f"of this body of {letter.size} bytes the dead letter keeps the first {letter.kept}"
            where = f"the whole is at {letter.topic}/{letter.partition}@{letter.offset}, as long as that topic keeps it"
            raise Failed(Exit.FAILED, f"{what}: {where}")
        click.get_binary_stream("stdout").write(record.value or b"")
    elif as_json:
        click.echo(json.dumps(letter.fields()))
    else:
        for name, value in letter.fields().items():
            lines = value.items() if isinstance(value, dict) else ((name, value),)
            for label, text in lines:
                click.echo(f"{label:16} {text}")


def _consumer(settings: Settings) -> AIOKafkaConsumer:
    return Consumer(
        **security(settings), enable_auto_commit=False, auto_offset_reset="earliest", isolation_level="read_committed"
    )


async def _partitions(settings: Settings, topic: str) -> list[TopicPartition]:
    count = await partition_count(settings, topic)
    if not count:
        raise Failed(Exit.CONFIG, f"the topic {topic} does not exist: run `kaption topics create`, or see --tenant")
    return [TopicPartition(topic, number) for number in range(count)]


async def _list(settings: Settings, topic: str, reason: str | None, limit: int) -> list[Listed]:
    async with broker(settings), _consumer(settings) as consumer:
        where = await _partitions(settings, topic)
        consumer.assign(where)
        ends = await consumer.end_offsets(where)
        letters: list[Listed] = []
        while any([await consumer.position(one) < ends[one] for one in where]):
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                letters += [letter for letter in map(describe, batch) if reason in (None, letter.reason)]
            letters = sorted(letters, key=lambda letter: letter.time)[-limit:]
        return letters


async def _show(settings: Settings, where: TopicPartition, offset: int) -> ConsumerRecord:
    missing = Failed(Exit.FAILED, f"there is no dead letter {where.partition}:{offset} in {where.topic}")
    async with broker(settings), _consumer(settings) as consumer:
        if where not in await _partitions(settings, where.topic):
            raise missing
        consumer.assign([where])
        first = (await consumer.beginning_offsets([where]))[where]
        end = (await consumer.end_offsets([where]))[where]
        if not first <= offset < end:
            raise missing
        consumer.seek(where, offset)
        while await consumer.position(where) < end:
            for record in (await consumer.getmany(timeout_ms=200, max_records=1)).get(where, ()):
                if record.offset == offset:
                    return record
                raise missing  # a transaction's marker is there
        raise missing  # and nothing after it
