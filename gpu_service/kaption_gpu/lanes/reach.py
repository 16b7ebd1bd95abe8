"""Tracks output topics that cannot be written to, so that one tenant's do not block other tenants of its lane (promise 7).

An operator may remove a tenant or its permissions while a run is open. In case that is a mistake, the lane waits for a
while; then transactions leave the tenant's records out (adr/0030).
"""

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final as Const

#: Seconds after which an unwritable topic is left out. A broker that has just started may not know all its topics yet.
GRACE_SECONDS: Const = 30.0
#: Seconds until the next check for a missing topic; then the first and the longest wait before a denied topic is tried again.
_LOOK_SECONDS: Const = 10.0
_TRY_SECONDS: Const = (60.0, 600.0)


@dataclass(slots=True)
class _Gone:
    since: float
    look_at: float
    denied: bool
    wait: float = _TRY_SECONDS[0]


class Reach:
    """The known state of the topics. All writers of a process share it. ``clock`` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._gone: dict[str, _Gone] = {}

    def fails(self, topics: Iterable[str], *, denied: bool = False) -> None:
        """Note that ``topics`` could not be written to: they are missing, or the broker denied it."""
        now = self._clock()
        for topic in topics:
            known = self._gone.get(topic)
            if known is None:
                self._gone[topic] = _Gone(now, now + GRACE_SECONDS, denied)
            elif denied and now - known.since >= GRACE_SECONDS:
                known.look_at, known.wait = now + known.wait, min(2 * known.wait, _TRY_SECONDS[1])
                known.denied = True
            elif known.denied and not denied:  # it was denied before, and is missing now
                known.denied, known.look_at = False, now + _LOOK_SECONDS

    def works(self, topics: Iterable[str]) -> None:
        """Note that ``topics`` were written to."""
        for topic in topics:
            self._gone.pop(topic, None)

    def shed(self, topic: str) -> bool:
        """Whether to shed partials for a topic: the last write failed, and the next try is not due."""
        gone = self._gone.get(topic)
        return gone is not None and (not gone.denied or self._clock() < gone.look_at)

    def left_out(self, topic: str) -> bool:
        """Whether to leave records to a topic out: it has been unwritable for long, and the next try is not due."""
        gone = self._gone.get(topic)
        now = self._clock()
        return gone is not None and now - gone.since >= GRACE_SECONDS and (not gone.denied or now < gone.look_at)

    def to_look(self, topics: Iterable[str]) -> bool:
        """Whether to list the topics now: one of these is missing, and its next check is due."""
        now = self._clock()
        found = [gone for topic in topics if (gone := self._gone.get(topic)) and not gone.denied]
        return any(now >= gone.look_at for gone in found)

    def seen(self, topics: Collection[str]) -> None:
        """Note the list of all topics that exist now."""
        now = self._clock()
        for topic, gone in list(self._gone.items()):
            if topic in topics and not gone.denied:
                del self._gone[topic]
            elif now >= gone.look_at and not gone.denied:
                gone.look_at = now + _LOOK_SECONDS
