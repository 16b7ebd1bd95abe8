"""Which output topics cannot be written to, so that one tenant's do not hold up the others of its lane (promise 7).

A tenant may have been taken out of service with a run open, or its grant been taken away. Its records are waited for for a
while, in case it is a mistake, and then left out of the transactions (adr/0030).
"""

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final as Const

#: A topic that cannot be written to for so long is left out, in seconds; a broker that has just started may not know all it has.
GRACE_SECONDS: Const = 30.0
#: Seconds until it is looked whether a missing topic is there again, and until writing to one that was denied is tried again, which doubles.
_LOOK_SECONDS: Const = 10.0
_TRY_SECONDS: Const = (60.0, 600.0)


@dataclass(slots=True)
class _Gone:
    since: float
    look_at: float
    denied: bool
    wait: float = _TRY_SECONDS[0]


class Reach:
    """What is known of the topics; shared by all writers of a process. ``clock`` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._gone: dict[str, _Gone] = {}

    def fails(self, topics: Iterable[str], *, denied: bool = False) -> None:
        """These could not be written to: they are not there, or the broker says that it is not allowed."""
        now = self._clock()
        for topic in topics:
            known = self._gone.get(topic)
            if known is None:
                self._gone[topic] = _Gone(now, now + GRACE_SECONDS, denied)
            elif denied and now - known.since >= GRACE_SECONDS:
                known.look_at, known.wait = now + known.wait, min(2 * known.wait, _TRY_SECONDS[1])
                known.denied = True
            elif known.denied and not denied:  # it was closed first, and is gone now
                known.denied, known.look_at = False, now + _LOOK_SECONDS

    def works(self, topics: Iterable[str]) -> None:
        """These were written to."""
        for topic in topics:
            self._gone.pop(topic, None)

    def shed(self, topic: str) -> bool:
        """Whether what may be lost is not written to a topic: it could not be last time, and it is not time to try again."""
        gone = self._gone.get(topic)
        return gone is not None and (not gone.denied or self._clock() < gone.look_at)

    def left_out(self, topic: str) -> bool:
        """Whether records to a topic are left out: it has been so for long, and it is not time to try."""
        gone = self._gone.get(topic)
        now = self._clock()
        return gone is not None and now - gone.since >= GRACE_SECONDS and (not gone.denied or now < gone.look_at)

    def to_look(self, topics: Iterable[str]) -> bool:
        """Whether to look now which topics there are: one of these is missing, and was when it was looked last."""
        now = self._clock()
        found = [gone for topic in topics if (gone := self._gone.get(topic)) and not gone.denied]
        return any(now >= gone.look_at for gone in found)

    def seen(self, topics: Collection[str]) -> None:
        """All that there are now."""
        now = self._clock()
        for topic, gone in list(self._gone.items()):
            if topic in topics and not gone.denied:
                del self._gone[topic]
            elif now >= gone.look_at and not gone.denied:
                gone.look_at = now + _LOOK_SECONDS
