"""Estimates the broker's time from its timestamps and a monotonic clock, never from this machine's date.

A worker's clock may be wrong or may be set, and a worker that was stopped does not know for how long.
"""

import time
from collections.abc import Callable


class BrokerClock:
    """A lower bound of the broker's time: the timestamp that gives the latest time, plus the seconds that passed since.

    Moments are seconds of ``monotonic``. Before the first timestamp, the ``wall`` clock counts, in seconds since 1970.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._ahead: float | None = None

    def seen(self, stamp_ms: int) -> None:
        """Note a record's timestamp from the broker, in ms since 1970: the broker's time is now the same or later."""
        ahead = stamp_ms - self._monotonic() * 1000
        self._ahead = ahead if self._ahead is None else max(self._ahead, ahead)

    def at(self, moment: float) -> int:
        """The broker's time at ``moment``, in ms since 1970."""
        if self._ahead is None:
            return round((self._wall() - self._monotonic() + moment) * 1000)
        return round(moment * 1000 + self._ahead)

    def now(self) -> int:
        """The broker's time, in ms since 1970."""
        return self.at(self._monotonic())
