"""Which windows are decoded next: the pool's plan, as a pure function of what is waiting and of what was spent before.

It owns fairness: live before files (which get at least a tenth of the device's time), tenants by deficit round robin in device
seconds, and within a tenant finals before partials once they are due, then the longest wait first. It never sees audio, a model or a clock.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final as Const

from kaption.domain.decoding.port import SAMPLE_RATE, Costs, Kind, window_length
from kaption.domain.records import Latency

#: Device seconds a tenant may spend in one turn.
QUANTUM: Const = 0.5
#: The least share of the device's time that files get while they wait.
BATCH_SHARE: Const = 0.1
#: Device seconds of a batch of live windows at most: whoever comes next waits for it.
LONGEST_BATCH: Const = 0.75
#: The same of a batch of files while live windows come, and for how many plans after the last one: one of a long window, several of
#: the short ones that live runs leave behind when they end late.
FILES_BESIDE_LIVE: Const = 0.25
_LIVE_PLANS: Const = 50
#: Bounds on what files may save up or owe, in device seconds, so that neither class is paid for a past of hours.
_CREDIT_LIMIT: Const = 2.0
#: The weight of a new measurement of what a batch takes.
_SMOOTHING: Const = 0.1
#: Waits that differ by less are the same: audio comes in frames of voice detection, 32 ms (seconds).
_SAME_WAIT: Const = 0.016
DEFAULT_COSTS: Const = Costs()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A window that some session wants decoded.

    ``owner`` is the caller's handle of the session, ``window`` the session's id of the window; ``seconds`` of audio;
    ``overdue_s`` is how long it has been waiting; negative for a final that need not be there yet; ``alone``: it may
    make its batch fail, and is decoded by itself.
    """

    owner: Hashable
    window: int
    tenant: str
    latency: Latency
    kind: Kind
    seconds: float
    overdue_s: float
    alone: bool = False

    @property
    def padded(self) -> int:
        """The window's padded length in samples, as the session will give it."""
        return window_length(round(self.seconds * SAMPLE_RATE), self.kind)


@dataclass(frozen=True, slots=True)
class Batch:
    """Windows to decode together: one kind, one padded length (samples). ``waited_s`` is the longest wait among them."""

    windows: tuple[Candidate, ...]
    kind: Kind
    padded: int
    waited_s: float


def overdue_seconds(waiting: Iterable[Candidate]) -> float:
    """Seconds of audio in windows that are past their deadline."""
    return sum((candidate.seconds for candidate in waiting if candidate.overdue_s > 0), 0.0)


class Planner:
    """Plans one batch at a time and keeps the accounts: what each tenant and each latency class has spent.

    Deterministic: the same calls give the same plans. ``costs`` are what batches take as far as is known; ``spent``
    corrects them.
    """

    def __init__(self, batch_size: int, costs: Costs = DEFAULT_COSTS) -> None:
        self._size = batch_size
        self._fixed = costs.fixed
        self._deficit: dict[str, float] = {}
        self._turn: str | None = None
        self._batch_credit = 0.0
        self._live_plans = 0
        self._lots = Random(0)  # noqa: S311  # a fixed seed: the same calls give the same plans
        self._cost = dict.fromkeys(Kind, costs.a_second)

    def next(self, waiting: Sequence[Candidate]) -> Batch | None:
        """The batch to decode now, at most ``batch_size`` windows; None when nothing waits.

        Its estimated cost is charged at once; ``spent`` corrects it.
        """
        if not waiting:
            return None
        self._drop_savings({candidate.tenant for candidate in waiting})
        lead = self._lead_class(waiting)
        first = self._take(self._turn_of(sorted({c.tenant for c in lead})), lead)
        chosen = [first]
        longest = self._longest(first, waiting)
        size = 1 if first.alone else self._fitting(first, longest)
        # A tenant's partials do not come before its finals in another's batch either.
        others = lead if first.kind is Kind.PARTIAL else waiting
        together = (c for c in others if c is not first and not c.alone)
        fits = [c for c in together if c.kind is first.kind and c.padded == first.padded]
        # Only of the same class: on a processor each further window makes a live caption later.
        rest = [c for c in fits if c.latency is first.latency]
        while rest and len(chosen) < size:
            picked = self._take(self._richest(rest), rest)
            rest.remove(picked)
            chosen.append(picked)
        self._credit(chosen, waiting)
        return Batch(tuple(chosen), first.kind, first.padded, max(c.overdue_s for c in chosen))

    def spent(self, batch: Batch, device_seconds: float) -> None:
        """Correct the accounts by what ``batch`` really took, and learn from it what the next will."""
        count = len(batch.windows)
        share = device_seconds / count
        estimate = self._estimate(batch.windows[0])
        for candidate in batch.windows:
            self._deficit[candidate.tenant] = self._deficit.get(candidate.tenant, 0.0) - (share - estimate)
        measured = device_seconds / (count + self._fixed) * SAMPLE_RATE / batch.padded
        self._cost[batch.kind] += _SMOOTHING * (measured - self._cost[batch.kind])

    def _longest(self, first: Candidate, waiting: Sequence[Candidate]) -> float:
        """Device seconds that a batch may take, which nothing can interrupt: little while people watch."""
        live = any(c.latency is Latency.LIVE for c in waiting)
        self._live_plans = _LIVE_PLANS if live else max(0, self._live_plans - 1)
        if first.latency is Latency.LIVE:
            return LONGEST_BATCH
        return FILES_BESIDE_LIVE if self._live_plans else math.inf

    def _fitting(self, first: Candidate, longest: float) -> int:
        """How many windows of ``first``'s kind and length take no longer than ``longest``; one at least, ``batch_size`` at most."""
        return max(1, round(min(self._size, longest / self._estimate(first) - self._fixed)))

    def _lead_class(self, waiting: Sequence[Candidate]) -> list[Candidate]:
        """The windows that the batch's first is taken from: of one latency class, and of each tenant its finals once one is due, else
        its partials.

        Not the finals of all tenants first: whoever has as many as the device can do would leave the others without captions (promise 7).
        """
        live = [c for c in waiting if c.latency is Latency.LIVE]
        files = [c for c in waiting if c.latency is Latency.BATCH]
        lead = files if files and (not live or self._batch_credit > 0) else live
        pressed = {c.tenant for c in lead if c.kind is Kind.FINAL and c.overdue_s >= 0}
        partial = {c.tenant for c in lead if c.kind is Kind.PARTIAL} - pressed
        return [c for c in lead if (c.kind is Kind.PARTIAL) == (c.tenant in partial)]

    def _take(self, tenant: str, among: Sequence[Candidate]) -> Candidate:
        """Take ``tenant``'s longest waiting window of ``among`` and charge the tenant for it.

        Waits are multiples of a frame, so many are equal; the lot falls among those, or some streams would always lose.
        """
        longest = max(c.overdue_s for c in among if c.tenant == tenant)
        equal = [c for c in among if c.tenant == tenant and longest - c.overdue_s < _SAME_WAIT]
        chosen = self._lots.choice(equal)
        self._deficit[tenant] = self._deficit.get(tenant, 0.0) - self._estimate(chosen)
        return chosen

    def _turn_of(self, tenants: list[str]) -> str:
        """Deficit round robin: whose turn it is among ``tenants`` (sorted), which all have something waiting."""
        if self._turn in tenants and self._deficit.get(self._turn, 0.0) > 0:
            return self._turn
        richest = max(self._deficit.get(tenant, 0.0) for tenant in tenants)
        if richest <= 0:
            self._grant(tenants, (int(-richest / QUANTUM) + 1) * QUANTUM)
        after = [t for t in tenants if self._turn is not None and t > self._turn]
        ring = after + tenants[: len(tenants) - len(after)]
        self._turn = next(tenant for tenant in ring if self._deficit.get(tenant, 0.0) > 0)
        return self._turn

    def _richest(self, among: Sequence[Candidate]) -> str:
        """Who fills a slot that would stay empty: it costs no turn, but it is charged."""
        return max(sorted({c.tenant for c in among}), key=lambda tenant: self._deficit.get(tenant, 0.0))

    def _grant(self, tenants: list[str], amount: float) -> None:
        """Give every waiting tenant ``amount`` seconds; who is not in ``tenants`` works off debts but saves nothing."""
        for tenant in set(self._deficit) | set(tenants):
            had = self._deficit.get(tenant, 0.0)
            self._deficit[tenant] = had + amount if tenant in tenants else max(had, min(had + amount, 0.0))

    def _drop_savings(self, present: set[str]) -> None:
        """A tenant with nothing waiting keeps its debt, not its savings; one without debt is forgotten."""
        self._deficit = {t: d for t, d in self._deficit.items() if t in present or d < 0}

    def _credit(self, chosen: Sequence[Candidate], waiting: Sequence[Candidate]) -> None:
        """Move the account that sees to it that files get their share while they wait."""
        if not any(c.latency is Latency.BATCH for c in waiting):
            self._batch_credit = min(self._batch_credit, 0.0)
            return
        total = self.estimate(chosen[0].kind, chosen[0].padded, len(chosen))
        files = total if chosen[0].latency is Latency.BATCH else 0.0
        credit = self._batch_credit + BATCH_SHARE * total - files
        self._batch_credit = min(max(credit, -_CREDIT_LIMIT), _CREDIT_LIMIT)

    def estimate(self, kind: Kind, padded: int, windows: float) -> float:
        """Device seconds that a batch of ``windows`` of ``padded`` samples will likely take."""
        return (windows + self._fixed) * self._cost[kind] * padded / SAMPLE_RATE

    def _estimate(self, candidate: Candidate) -> float:
        """Device seconds that one more window like ``candidate`` will likely take."""
        return self._cost[candidate.kind] * candidate.padded / SAMPLE_RATE
