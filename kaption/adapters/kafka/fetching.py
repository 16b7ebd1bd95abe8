"""How often a consumer asks its broker: not at once after records came, and less often where none come.

A question costs some milliseconds of both, whatever it brings: asked a little later, it brings more. And the embedded
broker answers an empty fetch at once, whatever its wait says: it would be asked 3,000 times a second, for a third of a
core. So after an empty answer that came before its wait was over there is a pause of 5 ms, doubling to 100, and of 250
where nothing came for ten seconds. Apache Kafka holds an empty fetch for its whole wait.

A question leaves out partitions that are paused, or whose records wait to be read. While the broker holds it, those cannot be
asked for, however soon they could be read on; Faust's consumers wait 1.5 s. So such a question is held for 50 ms at most.

A consumer makes its fetcher itself, so the fetcher is changed once it is there (``patient``), and aiokafka is not.
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

#: From an answer with records to the next question.
BREATH_SECONDS: Const = 0.01
#: After an empty answer that came early.
FIRST_SECONDS: Const = 0.005
MOST_SECONDS: Const = 0.1
#: Nothing came for so long: whoever speaks next waits a little more, once.
QUIET_AFTER_SECONDS: Const = 10.0
QUIET_SECONDS: Const = 0.25
#: For how long the broker may hold a question that leaves partitions out, in ms.
PARTIAL_WAIT_MS: Const = 50

#: The library's question to one node, its answer read by our parser of batches.
_ask: Const = with_names(Fetcher._proc_fetch_request, MemoryRecords=Batches)
_asked: Const["WeakKeyDictionary[Any, float]"] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class LogEnd:
    """Where a partition's log ended at the moment ``asked`` (``time.monotonic``) or later: at ``offset``."""

    offset: int
    asked: float


def log_end(consumer: AIOKafkaConsumer, tp: TopicPartition) -> LogEnd | None:
    """What ``consumer`` heard last of the end of a partition that is assigned to it; None before the first answer.

    The moment is that of the question: an answer may have waited for a process that was stopped.
    """
    state = consumer._subscription.subscription.assignment.state_value(tp)  # as its own ``highwater`` does
    asked = None if state is None else _asked.get(state)
    return None if state is None or asked is None or state.highwater is None else LogEnd(state.highwater, asked)


class Pause:
    """How long to wait before and after a question to one node; ``clock`` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_records = clock()
        self._seconds = 0.0

    def before(self) -> float:
        """Seconds from now until the next question; none or less when it may be asked at once."""
        return self._last_records + BREATH_SECONDS - self._clock()

    def records(self) -> None:
        """An answer had records."""
        self._last_records = self._clock()
        self._seconds = 0.0

    def after_nothing(self) -> float:
        """Seconds to wait after an empty answer."""
        quiet = self._clock() - self._last_records > QUIET_AFTER_SECONDS
        self._seconds = QUIET_SECONDS if quiet else min(max(self._seconds * 2, FIRST_SECONDS), MOST_SECONDS)
        return self._seconds


class _Questions:
    """One fetcher's questions to its brokers."""

    def __init__(self, fetcher: Any) -> None:
        self._fetcher = fetcher
        self._pauses: dict[int, Pause] = {}

    async def ask(self, assignment: Any, node: int, request: Any) -> bool:
        """As the fetcher's own, with the pauses; returns whether a reader is to be woken (records, or an error)."""
        own = sum(self._fetcher._select_read_replica(tp) == node for tp in assignment.tps)
        if sum(len(partitions) for _, partitions in request.topics) < own:
            request._max_wait_ms = min(request._max_wait_ms, PARTIAL_WAIT_MS)
        pause = self._pauses.setdefault(node, Pause())
        # The fetcher cancels its questions and expects a quiet end, as its own method gives.
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
    """Let ``fetcher``, which has asked nothing yet, pause between its questions and read any batch."""
    fetcher._proc_fetch_request = _Questions(fetcher).ask
    return fetcher
