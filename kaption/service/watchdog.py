"""Checks from outside that a service makes progress: a client library can stall without an error.

See HAZARDS, aiokafka 6 and faust 6.
"""

from collections.abc import Hashable, Mapping

from kaption_schemas.errors import StuckError


class Watchdog:
    """Compares the places of a service's parts with their earlier places. Pure: times are seconds of any monotonic clock."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._seen: dict[Hashable, tuple[Hashable, float]] = {}

    def look(self, now: float, places: Mapping[str, Hashable | None]) -> None:
        """Note the place of each part, by name; None for a part without work.

        Raises:
            StuckError: A part with work has been at one place for more than ``limit`` seconds.
        """
        seen: dict[Hashable, tuple[Hashable, float]] = {}
        for name, place in places.items():
            if place is None:
                continue
            before, since = self._seen.get(name, (None, now))
            seen[name] = (place, since if place == before else now)
            if now - seen[name][1] > self._limit:
                raise StuckError(name)
        self._seen = seen
