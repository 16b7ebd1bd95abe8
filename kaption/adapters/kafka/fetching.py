"""Makes consumers pause between fetch requests: briefly after records, longer after empty answers.

Every fetch costs client and broker a few milliseconds, and a later one brings more records. The embedded broker answers an
empty fetch at once and ignores its wait time; a consumer would send 3,000 a second, for a third of a core. So after an empty
answer before the end of its wait there is a pause of 5 ms, doubling to 100, and of 250 after ten seconds without records.
Apache Kafka holds an empty fetch for its whole wait.

A fetch leaves out partitions that are paused or have unread records. While the broker holds the fetch, the consumer cannot
fetch those, even if it could read on; Faust's consumers wait 1.5 s. So the broker holds such a fetch for 50 ms at most.

A consumer makes its fetcher itself, so ``patient`` changes that fetcher once it exists, and not aiokafka.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from typing import Final as Const
from weakref import WeakKeyDictionary

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import Fetcher

from kaption.adapters.kafka.copies import with_names
from kaption.adapters.kafka.record_batches import Batches

#: Seconds from an answer with records to the next fetch.
BREATH_SECONDS: Const = 0.01
#: Seconds after an early empty answer.
FIRST_SECONDS: Const = 0.005
MOST_SECONDS: Const = 0.1
#: Seconds without records after which a pause is longer: the next record waits a little more, once.
QUIET_AFTER_SECONDS: Const = 10.0
QUIET_SECONDS: Const = 0.25
#: Milliseconds for which the broker may hold a fetch that leaves partitions out.
PARTIAL_WAIT_MS: Const = 50

#: The library's fetch from one node, with the answer read by Kaption's own parser of batches.
_ask: Const = with_names(Fetcher._proc_fetch_request, MemoryRecords=Batches)
_asked: Const["WeakKeyDictionary[Any, float]"] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class LogEnd:
    """The end of a partition's log: at ``offset`` at the moment ``asked`` (``time.monotonic``) or later."""

    offset: int
    asked: float


def log_end(consumer: AIOKafkaConsumer, tp: TopicPartition) -> LogEnd | None:
    """Return the last log end that ``consumer`` received for an assigned partition; None before the first answer.

    The moment is that of the fetch request: the answer may have waited for a stopped process.
    """
    state = consumer._subscription.subscription.assignment.state_value(tp)  # as its own ``highwater`` does
    asked = None if state is None else _asked.get(state)
    return None if state is None or asked is None or state.highwater is None else LogEnd(state.highwater, asked)


class Pause:
    """Decides how long to wait before and after a fetch from one node; ``clock`` returns seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_records = clock()
        self._seconds = 0.0

    def before(self) -> float:
        """Return the seconds until the next fetch; 0 or less if it may go at once."""
        return self._last_records + BREATH_SECONDS - self._clock()

    def records(self) -> None:
        """Note an answer with records."""
        self._last_records = self._clock()
        self._seconds = 0.0

    def after_nothing(self) -> float:
        """Note an empty answer; return the seconds to wait."""
        quiet = self._clock() - self._last_records > QUIET_AFTER_SECONDS
        self._seconds = QUIET_SECONDS if quiet else min(max(self._seconds * 2, FIRST_SECONDS), MOST_SECONDS)
        return self._seconds


class _Questions:
    """Sends one fetcher's requests to its brokers."""

    def __init__(self, fetcher: Any) -> None:
        self._fetcher = fetcher
        self._pauses: dict[int, Pause] = {}

    async def ask(self, assignment: Any, node: int, request: Any) -> bool:
        """Fetch like the fetcher's own method, with pauses; return whether to wake a reader, for records or an error."""
        own = sum(self._fetcher._select_read_replica(tp) == node for tp in assignment.tps)
        if sum(len(partitions) for _, partitions in request.topics) < own:
            request._max_wait_ms = min(request._max_wait_ms, PARTIAL_WAIT_MS)
        pause = self._pauses.setdefault(node, Pause())
        # The fetcher cancels its requests and expects them to end quietly, as its own method does.
        with contextlib.suppress(asyncio.CancelledError):
            if (seconds := pause.before()) > 0:
                await asyncio.sleep(seconds)
            asked = [TopicPartition(topic, place[0]) for topic, places in request.topics for place in places]
            states = [state for tp in asked if (state := assignment.state_value(tp)) is not None]
            before = [state.timestamp for state in states]
            started = time.monotonic()
            woken = await _ask(self._fetcher, assignment, node, request)
            for state, stamp in zip(states, before, strict=True):
                if state.timestamp != stamp:
                    _asked[state] = started
            if woken:
                pause.records()
                return True
            if time.monotonic() - started < request._max_wait_ms / 2000:
                await asyncio.sleep(pause.after_nothing())
        return False


def patient(fetcher: Any) -> Any:  # aiokafka ships no types
    """Make ``fetcher``, which has sent no request yet, pause between its requests and read any batch."""
    fetcher._proc_fetch_request = _Questions(fetcher).ask
    return fetcher
