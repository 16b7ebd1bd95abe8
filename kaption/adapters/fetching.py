"""Fetching from a broker that does not wait: the embedded one answers an empty fetch at once, whatever its wait says.

A consumer would ask it some 3,000 times a second, a third of a core each. Here it pauses after an empty answer that came
before the wait was over: 5 ms, doubling to 100, until records come, and 250 where none came for ten seconds. Apache Kafka
holds an empty fetch for its whole wait, so nothing changes there. aiokafka and Faust make their fetchers themselves, hence the method is replaced on the class.
"""

import asyncio
import contextlib
import time
from typing import Any
from typing import Final as Const
from weakref import WeakKeyDictionary

from aiokafka.consumer.fetcher import Fetcher

FIRST_SECONDS: Const = 0.005
MOST_SECONDS: Const = 0.1
#: Nothing came for so long: whoever speaks next waits a little more, once.
QUIET_AFTER_SECONDS: Const = 10.0
QUIET_SECONDS: Const = 0.25

_ask: Const = Fetcher._proc_fetch_request
_pauses: Const["WeakKeyDictionary[Any, dict[int, _Pause]]"] = WeakKeyDictionary()


class _Pause:
    """How long to wait before the next question to one node."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._seconds = FIRST_SECONDS / 2

    def next(self) -> float:
        quiet = time.monotonic() - self._since > QUIET_AFTER_SECONDS
        self._seconds = QUIET_SECONDS if quiet else min(self._seconds * 2, MOST_SECONDS)
        return self._seconds


async def _ask_patiently(self: Any, assignment: Any, node: int, request: Any) -> bool:
    """As the fetcher's own, with the pause; returns whether a reader is to be woken (records, or an error)."""
    started = time.monotonic()
    woke = bool(await _ask(self, assignment, node, request))
    pauses = _pauses.setdefault(self, {})
    if woke or time.monotonic() - started > self._fetch_max_wait_ms / 2000:
        pauses.pop(node, None)
        return woke
    pause = pauses.setdefault(node, _Pause()).next()
    # The fetcher cancels its questions and expects a quiet end, as its own method gives.
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(pause)
    return woke


def pause_between_empty_fetches() -> None:
    """Let every consumer of this process pause; a second call changes nothing."""
    Fetcher._proc_fetch_request = _ask_patiently
