"""The broker's time, as a lane needs it: told by its stamps and by a clock that only goes forward, never by this machine's date.

A worker's clock may be ahead or be set, and a worker that was stopped goes on in another moment than it believes.
"""

import time
from collections.abc import Callable


class BrokerClock:
    """What time it is at the broker at least: the best that any of its stamps says, and the seconds that passed since.

    Moments are seconds of ``monotonic``. Before the first stamp it is the ``wall`` clock, in seconds since 1970.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._ahead: float | None = None

    def seen(self, stamp_ms: int) -> None:
        """A record is here that the broker stamped so, in ms since 1970: it is that time now, or later."""
        ahead = stamp_ms - self._monotonic() * 1000
        self._ahead = ahead if self._ahead is None else max(self._ahead, ahead)

    def at(self, moment: float) -> int:
        """The broker's time at that moment, in ms since 1970."""
        if self._ahead is None:
            return round((self._wall() - self._monotonic() + moment) * 1000)
        return round(moment * 1000 + self._ahead)

    def now(self) -> int:
        """The broker's time, in ms since 1970."""
        return self.at(self._monotonic())
