"""Takes a lane over in the only safe order: fence, recheck, offset, claim, snapshots (HAZARDS, aiokafka 3).

Before the previous owner is fenced, it may still move the committed offset. The claim comes before the snapshots, since
its offset says how far they must be read. For a while after a broker's crash, the end offset that the broker reports is too
small (KIP-207, which aiokafka's version of the request lacks), and a lane without its snapshots would begin its runs
again. So a committed offset beyond that end does not mean that the log is lost; only a fetch can show it.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final as Const

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord

from kaption.adapters.kafka.clients import Consumer, security
from kaption.adapters.settings import Settings
from kaption.domain.pool.ports import Admission, Sessions, takes_all
from kaption.domain.records import Latency, RunKey
from kaption_gpu.lanes.clock import BrokerClock
from kaption_gpu.lanes.closed_runs import keep_ms
from kaption_gpu.lanes.data import Saved, SavedLane, Source
from kaption_gpu.lanes.letters import NOTHING_TOLD, Told
from kaption_gpu.lanes.memory import LaneMemory
from kaption_gpu.lanes.transactions import LaneWriter
from kaption_schemas.codec import is_undecodable, read_state
from kaption_schemas.errors import IncompatibleError, LaneError
from kaption_schemas.reasons import Reason
from kaption_schemas.topics import MIB, STATE

log = logging.getLogger(__name__)

_STOP_SECONDS: Const = 5.0
#: Seconds for fencing and the requests before the snapshots. A lane that hangs in them begins again.
_FENCE_SECONDS: Const = 60.0
#: Records of the state topic that a thread parses together.
_PIECE: Const = 2000
#: ``ConsumerRecord.timestamp_type`` of a timestamp from the broker.
_APPEND_TIME: Const = 1


@dataclass(frozen=True, slots=True)
class Start:
    """The offset at which a lane starts. ``lost``: the log lacks records since the last commit. ``cut_off``: it ends before."""

    position: int
    lost: bool = False
    cut_off: bool = False


async def open_lane(
    consumer: AIOKafkaConsumer,
    settings: Settings,
    source: Source,
    sessions: Sessions,
    clock: BrokerClock,
    writer: LaneWriter,
    *,
    out_of_range: bool = False,
    refusal: Admission = takes_all,
) -> LaneMemory:
    """Fence the previous owner, and restore its sessions. ``consumer`` must have the partition paused.

    ``out_of_range`` says that a fetch at the committed offset was refused. ``refusal`` decides whether a live run is taken.
    ``clock`` gets the broker's time of the claim. This starts ``writer``; the caller must stop it.

    Raises ``LaneError``, ``IncompatibleError``, ``LaneError``, ``KafkaError`` and ``TimeoutError``.
    """
    async with asyncio.timeout(_FENCE_SECONDS):
        await writer.start()
        tp = TopicPartition(source.topic, source.partition)
        if tp not in consumer.assignment():
            raise LaneError(str(source))
        start = await _start(consumer, tp, out_of_range=out_of_range)
        epoch = await writer.claim(afresh=start.cut_off)
    saved = await _read_saved(settings, source, epoch, clock, cut_off=start.cut_off)
    return LaneMemory(
        source,
        sessions,
        saved,
        position=start.position,
        epoch=epoch,
        silence_ms=round(settings.silence_commit_seconds * 1000),
        lost=start.lost,
        refusal=refusal,
    )


async def _start(consumer: AIOKafkaConsumer, tp: TopicPartition, *, out_of_range: bool) -> Start:
    """The committed offset. If there is none, or the log does not hold it, the log's beginning."""
    committed = await consumer.committed(tp)
    first = (await consumer.beginning_offsets([tp]))[tp]
    if committed is None:
        return Start(first)
    if first <= committed and not out_of_range:
        return Start(committed)
    log.warning(
        "committed_offset_lost",
        extra={
            "topic": tp.topic,
            "partition": tp.partition,
            "committed": committed,
            "first": first,
            "reason": Reason.RETENTION.value,
        },
    )
    return Start(first, lost=True, cut_off=committed >= first)


@dataclass
class _Index:
    """The state topic's records for one lane. Of closed runs it keeps only the marks: a month may hold millions."""

    source: Source
    claim: int
    told: Told = NOTHING_TOLD
    claimed_ms: int = 0
    stamped_ms: int | None = None
    _saved: dict[bytes, Saved] = field(default_factory=dict)

    def add(self, records: Sequence[ConsumerRecord]) -> None:
        """Take the next records. Raises ``IncompatibleError``."""
        try:
            for record in records:
                self._add(record)
        except (KeyError, ValueError, TypeError) as error:
            raise IncompatibleError(type(error).__name__) from error

    def _add(self, record: ConsumerRecord) -> None:
        if record.offset == self.claim:
            self.claimed_ms = record.timestamp
            self.stamped_ms = record.timestamp if record.timestamp_type == _APPEND_TIME else None
        if record.key is None:
            return
        self._saved.pop(record.key, None)
        if record.value is None:
            return
        match read_state(record):
            case str(key) if key == str(self.source):
                self.told = Told.read(record.value)
            case ((tenant, stream, run), marks) if Latency(marks.latency) is self.source.latency:
                value = b"" if marks.closed else record.value
                self._saved[record.key] = Saved(RunKey(tenant, stream, run), marks, value, record.timestamp)

    def lane(self, *, cut_off: bool) -> SavedLane:
        """The lane's saved state, without closed runs that have no more audio in the log."""
        since = self.claimed_ms - keep_ms(self.source.latency)
        kept = tuple(saved for saved in self._saved.values() if not saved.marks.closed or saved.written_ms >= since)
        return SavedLane(kept, self.told, self.claimed_ms, cut_off)


async def _read_saved(
    settings: Settings, source: Source, claim: int, clock: BrokerClock, *, cut_off: bool
) -> SavedLane:
    """The last snapshot of each of the lane's runs, and the lane's own record, up to the claim at offset ``claim``.

    The live and the batch lane of one number share a state partition, so this waits for the other lane's open transaction.
    """
    tp = TopicPartition(STATE.name, source.partition)
    reader = Consumer(
        **security(settings),
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        # Read in one piece if possible: the embedded broker lists an aborted transaction again after its end, and aiokafka
        # then skips records that the same producer committed later.
        max_partition_fetch_bytes=64 * MIB,
        fetch_max_bytes=64 * MIB,
    )
    index = _Index(source, claim)
    try:
        # Start within the block: the revocation of the lane may cancel this while it is half connected.
        await reader.start()
        reader.assign([tp])
        await reader.seek_to_beginning(tp)
        # Another lane's transaction ends within its timeout, or the broker aborts it. The time counts from the last record: a
        # month of closed runs takes longer to read.
        patience = 2 * settings.transaction_timeout_ms / 1000
        async with asyncio.timeout(patience) as limit:
            while await reader.position(tp) <= claim:
                found = (await reader.getmany(timeout_ms=200, max_records=_PIECE)).values()
                if found:
                    limit.reschedule(asyncio.get_running_loop().time() + patience)
                for records in found:
                    if any(is_undecodable(record.headers) for record in records):
                        raise IncompatibleError("a batch of the state topic")
                    await asyncio.to_thread(index.add, records)
    finally:
        async with asyncio.timeout(_STOP_SECONDS):
            await reader.stop()
    if index.stamped_ms is not None:
        clock.seen(index.stamped_ms)
    return index.lane(cut_off=cut_off)


def source_of(topic: str, partition: int) -> Source:
    """The lane of a partition of an audio topic."""
    latency = next(latency for latency in Latency if Source(latency, partition).topic == topic)
    return Source(latency, partition)
