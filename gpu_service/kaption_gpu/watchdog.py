"""Whether reading goes on, seen from outside: a consumer can stand still without an error (HAZARDS, aiokafka 6)."""

from collections.abc import Mapping

from aiokafka import TopicPartition


class StuckError(Exception):
    """Polling or a lane made no progress for ``Settings.hang_seconds``, or more executors hang than can be replaced."""


class Watchdog:
    """Looks at polling and at each lane. Pure: times come in as seconds of any clock that goes forward."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._behind: dict[TopicPartition, tuple[int, float]] = {}

    def look(self, now: float, polled: float, unread: Mapping[TopicPartition, int | None]) -> None:
        """See how reading stands: ``polled`` is when a poll last ended; ``unread`` are offsets that lanes have yet to read, None for a lane with nothing to read.

        Raises:
            StuckError: No poll has ended for ``limit`` seconds, or a lane stands at one offset for so long.
        """
        if now - polled > self._limit:
            raise StuckError("poll")
        for lane, offset in unread.items():
            before, since = self._behind.get(lane, (None, now))
            if offset is None:
                self._behind.pop(lane, None)
            elif offset != before:
                self._behind[lane] = (offset, now)
            elif now - since > self._limit:
                raise StuckError("lane")
        self._behind = {lane: seen for lane, seen in self._behind.items() if lane in unread}
