"""Reading for every lane of a worker: fair between them, and no more often than it is worth."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any
from typing import Final as Const

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import NoOffsetForPartitionError, OffsetOutOfRangeError

from kaption_gpu.lanes.lane import Lane
from kaption_gpu.lanes.transactions import Tracing

#: Records that one lane may take in one poll.
POLL_RECORDS: Const = 200
_POLL_MS: Const = 200
_PAUSE_SECONDS: Const = 0.03
_LATE_PAUSE_SECONDS: Const = 0.2


def read_pause(most: int, *, finals_late: bool) -> float:
    """Seconds until the next fetch, when no lane got more than ``most`` records of this one.

    Each costs a millisecond or two, here and in the broker: with many streams a little later brings more. Finals that are late wait for
    processor time, so then it is later still, unless records were left behind.
    """
    return _LATE_PAUSE_SECONDS if finals_late and most < POLL_RECORDS else _PAUSE_SECONDS


class Reader:
    """Polls ``consumer`` for ``lanes``, by partition; calls ``wake`` when there is something to plan."""

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
        """Read nothing more."""
        self._stopped = True

    async def run(self) -> None:
        """Read on until stopped: also while every lane is paused, or the consumer may leave its group for good."""
        while not self._stopped:
            try:
                await self._read(await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=POLL_RECORDS))
            except OffsetOutOfRangeError as error:
                for tp in error.args[0]:
                    if lane := self._lanes.get(tp):
                        lane.restart()
            except NoOffsetForPartitionError:
                # A partition that was assigned this moment; its lane seeks when it is open.
                await asyncio.sleep(_POLL_MS / 1000)
            self.polled = time.monotonic()

    async def _read(self, first: dict[TopicPartition, list[Any]]) -> None:
        """Hand ``first`` to its lanes, and let every other lane have its share."""
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
        """Hand records to their lanes; how many there were."""
        for tp, batch in records.items():
            if lane := self._lanes.get(tp):
                self._tracing.poll(lane.source, batch)
                lane.offer(batch)
                lane.pump()
        return sum(map(len, records.values()))
