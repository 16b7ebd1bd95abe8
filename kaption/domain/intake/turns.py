"""Chooses the next tenant's object when several wait for few slots. Pure.

The tenant with the fewest objects in work goes first, then the one that has had the least time. A single tenant may use
every slot. A tenant with nothing in work does not wait for the long files of others: it gets an extra slot, up to twice
the number of slots.
"""

from collections import Counter, deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Turns(Generic[Item]):
    """Waiting items by tenant, with the items in work and the seconds used of each. ``slots`` items are in work at once."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._waiting: dict[str, deque[Item]] = {}
        self._working: Counter[str] = Counter()
        self._spent: dict[str, float] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def working(self) -> int:
        """The number of items in work."""
        return self._working.total()

    def add(self, tenant: str, item: Item, *, first: bool = False) -> None:
        """Let ``item`` wait after the tenant's other items, or before them if ``first``."""
        if not self._waiting.get(tenant) and not self._working[tenant]:
            # A tenant that was idle saves no time: else it would get all slots, and the others none, until that time is used.
            others = [
                self._spent.get(name, 0.0) for name, items in self._waiting.items() if items or self._working[name]
            ]
            self._spent[tenant] = max(self._spent.get(tenant, 0.0), min(others, default=0.0))
        items = self._waiting.setdefault(tenant, deque())
        if first:
            items.appendleft(item)
        else:
            items.append(item)

    def take(self) -> tuple[str, Item] | None:
        """Take the next item and its tenant into work. None if nothing may begin."""
        ready = [tenant for tenant, items in self._waiting.items() if items]
        if self.working >= self._slots:
            beyond = self.working < 2 * self._slots
            ready = [tenant for tenant in ready if beyond and not self._working[tenant]]
        if not ready:
            return None
        tenant = min(ready, key=lambda name: (self._working[name], self._spent[name]))
        self._working[tenant] += 1
        return tenant, self._waiting[tenant].popleft()

    def done(self, tenant: str, seconds: float) -> None:
        """Note that an item of ``tenant`` is done, after ``seconds``."""
        self._working[tenant] -= 1
        self._spent[tenant] += seconds
