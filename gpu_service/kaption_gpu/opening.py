"""Taking a lane over, in the one order that is safe: fence, recheck, offset, claim, snapshots (HAZARDS, aiokafka 3).

Reading the committed offset before the previous owner is fenced could read one that it is about to move. The claim comes
before the snapshots, since its offset says how far they must be read: for a while after a broker's crash the end offset
that it tells is too small (KIP-207, which aiokafka's version of the request has not), and a lane without its snapshots
would begin its runs anew. Nor is a committed offset beyond that end taken for a lost log; only a fetch can tell.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final as Const

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord

from kaption.adapters.kafka import security
from kaption.adapters.settings import Settings
from kaption.domain.events import is_undecodable
from kaption.domain.outputs import Latency, RunKey
from kaption_gpu.lane_data import Saved, SavedLane, Source, read_lane_value
from kaption_gpu.memory import LaneMemory
from kaption_gpu.ports import Sessions, SnapshotUnreadableError
from kaption_gpu.records import read_marks
from kaption_gpu.transactions import NO_TRACING, LaneWriter, Tracing
from kaption_schemas.headers import text_headers
from kaption_schemas.reasons import Reason
from kaption_schemas.topics import MIB, STATE, Type

log = logging.getLogger(__name__)

_STOP_SECONDS: Const = 5.0


class LaneLostError(Exception):
    """The partition was assigned to somebody else while the lane was being opened."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a lane starts reading. ``lost``: the log lacks records since the last commit; ``truncated``: it ends before."""

    position: int
    lost: bool = False
    truncated: bool = False


async def open_lane(
    consumer: AIOKafkaConsumer,
    settings: Settings,
    source: Source,
    sessions: Sessions,
    tracing: Tracing = NO_TRACING,
    *,
    out_of_range: bool = False,
    admits: Callable[[str], bool] = lambda _tenant: True,
) -> tuple[LaneWriter, LaneMemory]:
    """Fence the previous owner and bring its sessions back. ``consumer`` must have the partition paused.

    ``out_of_range`` says that a fetch at the committed offset was refused, ``admits`` whether a new live run of a tenant is taken.

    Raises ``LaneLostError``, ``SnapshotUnreadableError``, ``TransactionFailedError`` and ``KafkaError``.
    """
    writer = LaneWriter(settings, source, tracing)
    try:
        await writer.start()
        tp = TopicPartition(source.topic, source.partition)
        if tp not in consumer.assignment():
            raise LaneLostError(str(source))
        place = await _place(consumer, tp, out_of_range=out_of_range)
        epoch = await writer.claim(afresh=place.truncated)
        saved = await _read_saved(settings, source, epoch)
        if place.truncated:
            # Offsets beyond the log's end are gone; what comes at them now is new and must not be taken for covered.
            saved = replace(saved, snapshots=tuple(_clamp(item, place.position) for item in saved.snapshots))
        memory = LaneMemory(
            source,
            sessions,
            saved,
            position=place.position,
            epoch=epoch,
            silence_ms=round(settings.silence_commit_seconds * 1000),
            lost=place.lost,
            admits=admits,
        )
    except BaseException:
        await writer.stop()
        raise
    return writer, memory


async def _place(consumer: AIOKafkaConsumer, tp: TopicPartition, *, out_of_range: bool) -> Place:
    """The committed offset; the log's beginning where there is none, or where the log does not hold it."""
    committed = await consumer.committed(tp)
    first = (await consumer.beginning_offsets([tp]))[tp]
    if committed is None:
        return Place(first)
    if first <= committed and not out_of_range:
        return Place(committed)
    log.warning(
        "The log does not hold the committed offset; starting at its beginning",
        extra={
            "topic": tp.topic,
            "partition": tp.partition,
            "committed": committed,
            "first": first,
            "reason": Reason.RETENTION.value,
        },
    )
    return Place(first, lost=True, truncated=committed >= first)


def _clamp(item: Saved, position: int) -> Saved:
    marks = item.marks
    return replace(item, marks=replace(marks, settled=min(marks.settled, position), began=min(marks.began, position)))


async def _read_saved(settings: Settings, source: Source, claim: int) -> SavedLane:
    """The last snapshot of each of the lane's runs, and the lane's own record, up to the claim at offset ``claim``.

    The state partition is shared by the live and the batch lane of its number, and the other one's open transaction is
    waited for.
    """
    tp = TopicPartition(STATE.name, source.partition)
    reader = AIOKafkaConsumer(
        **security(settings),
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        # In one piece where that is possible: the embedded broker names an aborted transaction behind its end again, and
        # aiokafka then skips what its producer committed later.
        max_partition_fetch_bytes=64 * MIB,
        fetch_max_bytes=64 * MIB,
    )
    last: dict[bytes, ConsumerRecord] = {}
    claimed_ms = 0
    try:
        # Within the block: a lane that is revoked meanwhile cancels this, half connected.
        await reader.start()
        reader.assign([tp])
        await reader.seek_to_beginning(tp)
        # Another lane's transaction ends, or is aborted by the broker, within its timeout. Counted from the last record: a month of
        # closed runs takes longer to read.
        patience = 2 * settings.transaction_timeout_ms / 1000
        async with asyncio.timeout(patience) as limit:
            while await reader.position(tp) <= claim:
                found = (await reader.getmany(timeout_ms=200)).values()
                if found:
                    limit.reschedule(asyncio.get_running_loop().time() + patience)
                for records in found:
                    if any(is_undecodable(record.headers) for record in records):
                        raise SnapshotUnreadableError("a batch of the state topic")
                    last |= {record.key: record for record in records if record.key is not None}
                    claimed_ms = max((r.timestamp for r in records if r.offset == claim), default=claimed_ms)
    finally:
        async with asyncio.timeout(_STOP_SECONDS):
            await reader.stop()
    return replace(_saved(last, source), claimed_ms=claimed_ms)


def _saved(last: dict[bytes, ConsumerRecord], source: Source) -> SavedLane:
    snapshots: list[Saved] = []
    dead: dict[int, Reason] = {}
    try:
        for key, record in last.items():
            if record.value is None:
                continue
            kind = text_headers(record.headers).get("ce_type")
            if kind == Type.CLAIM and key == str(source).encode():
                dead = read_lane_value(record.value)
            elif kind == Type.SNAPSHOT and (marks := read_marks(record)).latency is source.latency:
                tenant, stream, run = key.decode().split("/")
                snapshots.append(Saved(RunKey(tenant, stream, run), marks, record.value))
    except (KeyError, ValueError) as error:
        raise SnapshotUnreadableError(type(error).__name__) from error
    return SavedLane(tuple(snapshots), dead)


def source_of(topic: str, partition: int) -> Source:
    """The lane that a partition of an audio topic is."""
    latency = next(latency for latency in Latency if Source(latency, partition).topic == topic)
    return Source(latency, partition)
