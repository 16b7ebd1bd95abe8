"""Which tenant's object is next, where several wait for few slots. Pure.

Who has least in work goes first, then who was given least time so far. A tenant alone has every slot. One that has nothing in
work does not wait for the films of others: it gets a slot beyond those, as long as no more than twice the slots are in work.
"""

from collections import Counter, deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Turns(Generic[Item]):
    """What waits, by tenant, and what each tenant has in work and was given: ``slots`` items at once."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._waiting: dict[str, deque[Item]] = {}
        self._working: Counter[str] = Counter()
        self._spent: dict[str, float] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def working(self) -> int:
        """How many are in work."""
        return self._working.total()

    def add(self, tenant: str, item: Item, *, first: bool = False) -> None:
        """Let ``item`` wait, behind the tenant's others or before them."""
        if not self._waiting.get(tenant) and not self._working[tenant]:
            # Who was away saves up no time: it would be given all slots, and the others none, until that is spent.
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
        """The next item and its tenant, in work from now on; None where nothing may begin."""
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
        """One of ``tenant``'s is no longer in work, which took ``seconds``."""
        self._working[tenant] -= 1
        self._spent[tenant] += seconds
