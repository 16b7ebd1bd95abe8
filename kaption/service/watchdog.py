"""Whether a service gets on, seen from outside: a client library can stand still without an error (HAZARDS, aiokafka 6, faust 6)."""

from collections.abc import Hashable, Mapping

from kaption_schemas.errors import StuckError


class Watchdog:
    """Compares where things stand with where they stood. Pure: times are seconds of any clock that goes forward."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._seen: dict[Hashable, tuple[Hashable, float]] = {}

    def look(self, now: float, places: Mapping[str, Hashable | None]) -> None:
        """See where each thing stands, by its name; None for one that has nothing to do.

        Raises:
            StuckError: Something with work has stood in one place for more than ``limit`` seconds.
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
