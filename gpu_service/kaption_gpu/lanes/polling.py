"""Reads for every lane of a worker: fairly, and with pauses that save fetch requests."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any
from typing import Final as Const

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import NoOffsetForPartitionError, OffsetOutOfRangeError

from kaption_gpu.lanes.lane import Lane
from kaption_gpu.lanes.transactions import Tracing

#: The most records of one lane in one poll.
POLL_RECORDS: Const = 200
_POLL_MS: Const = 200
_PAUSE_SECONDS: Const = 0.03
_LATE_PAUSE_SECONDS: Const = 0.2


def read_pause(most: int, *, finals_late: bool) -> float:
    """Seconds until the next fetch, if no lane got more than ``most`` records from this one.

    A fetch costs a millisecond or two here and in the broker. With many streams, a slightly later fetch returns more
    records. Late finals need processor time, so then the pause is longer, unless records were left behind.
    """
    return _LATE_PAUSE_SECONDS if finals_late and most < POLL_RECORDS else _PAUSE_SECONDS


class Reader:
    """Polls ``consumer`` for ``lanes``, by partition. Calls ``wake`` when records have come."""

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        lanes: Mapping[TopicPartition, Lane],
        tracing: Tracing,
        wake: Callable[[], None],
        finals_late: Callable[[], bool],
    ) -> None:
        self.polled = time.monotonic()
        self._consumer = consumer
        self._lanes = lanes
        self._tracing = tracing
        self._wake = wake
        self._finals_late = finals_late
        self._stopped = False

    def stop(self) -> None:
        """Stop reading."""
        self._stopped = True

    async def run(self) -> None:
        """Poll until stopped, even while every lane is paused: otherwise the consumer may leave its group permanently."""
        while not self._stopped:
            try:
                await self._read(await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=POLL_RECORDS))
            except OffsetOutOfRangeError as error:
                for tp in error.args[0]:
                    if lane := self._lanes.get(tp):
                        lane.restart()
            except NoOffsetForPartitionError:
                # The partition was just assigned. Its lane seeks when it is open.
                await asyncio.sleep(_POLL_MS / 1000)
            self.polled = time.monotonic()

    async def _read(self, first: dict[TopicPartition, list[Any]]) -> None:
        """Hand ``first`` to its lanes, and give every other lane its share."""
        most = self._offer(first)
        if not most:
            return
        for tp, lane in list(self._lanes.items()):
            if tp not in first and not lane.paused and tp in self._consumer.assignment():
                share = await self._consumer.getmany(tp, timeout_ms=0, max_records=POLL_RECORDS)
                most = max(most, self._offer(share))
        self._wake()
        await asyncio.sleep(read_pause(most, finals_late=self._finals_late()))

    def _offer(self, records: dict[TopicPartition, list[Any]]) -> int:
        """Hand records to their lanes. Returns their number."""
        for tp, batch in records.items():
            if lane := self._lanes.get(tp):
                self._tracing.poll(lane.source, batch)
                lane.offer(batch)
                lane.pump()
        return sum(map(len, records.values()))
