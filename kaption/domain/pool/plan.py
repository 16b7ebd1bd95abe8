"""Plans which windows are decoded next: a pure function of the waiting windows and the accounts.

It owns fairness: live before files, which get at least a tenth of the device's time; tenants by deficit round robin in
device seconds; within a tenant due finals before partials, then the longest wait. It never sees audio, a model or a clock.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final as Const

from kaption.domain.decoding.port import SAMPLE_RATE, Costs, Kind, window_length
from kaption.domain.records import Latency

#: Device seconds that a tenant may spend in one turn.
QUANTUM: Const = 0.5
#: The least share of the device's time that files get while they wait.
BATCH_SHARE: Const = 0.1
#: Most device seconds of a batch of live windows: the next window waits for it.
LONGEST_BATCH: Const = 0.75
#: Most device seconds of a file batch while live windows arrive, and for ``_LIVE_PLANS`` plans after: one long window, or
#: several of the short ones that live runs leave when they end late.
FILES_BESIDE_LIVE: Const = 0.25
_LIVE_PLANS: Const = 50
#: Most device seconds that files may save up or owe, so that hours of the past do not count for either class.
_CREDIT_LIMIT: Const = 2.0
#: The weight of a new measurement of a batch's cost.
_SMOOTHING: Const = 0.1
#: Waits that differ by fewer seconds are equal: audio comes in voice-detection frames of 32 ms.
_SAME_WAIT: Const = 0.016
DEFAULT_COSTS: Const = Costs()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A window that a session wants decoded.

    ``owner`` is the caller's handle of the session, ``window`` the session's id of the window; ``seconds`` of audio;
    ``overdue_s`` is the time it has waited, negative for a final that is not due; ``alone``: decode it by itself, since it
    may make its batch fail.
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
        """The window's padded length in samples, as the session will pad it."""
        return window_length(round(self.seconds * SAMPLE_RATE), self.kind)


@dataclass(frozen=True, slots=True)
class Batch:
    """Windows to decode together, of one kind and one padded length in samples. ``waited_s`` is the longest wait."""

    windows: tuple[Candidate, ...]
    kind: Kind
    padded: int
    waited_s: float


def overdue_seconds(waiting: Iterable[Candidate]) -> float:
    """Return the seconds of audio in windows that are past their deadline."""
    return sum((candidate.seconds for candidate in waiting if candidate.overdue_s > 0), 0.0)


class Planner:
    """Plans one batch at a time and keeps account of what each tenant and each latency class has spent.

    Deterministic: the same calls give the same plans. ``costs`` are the first estimate of batches' costs; ``spent``
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
        """Return the batch to decode now, at most ``batch_size`` windows; None when nothing waits.

        The planner charges its estimated cost at once; ``spent`` corrects it.
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
        # Only windows of the same class: on a processor each further window delays a live caption.
        rest = [c for c in fits if c.latency is first.latency]
        while rest and len(chosen) < size:
            picked = self._take(self._richest(rest), rest)
            rest.remove(picked)
            chosen.append(picked)
        self._credit(chosen, waiting)
        return Batch(tuple(chosen), first.kind, first.padded, max(c.overdue_s for c in chosen))

    def spent(self, batch: Batch, device_seconds: float) -> None:
        """Correct the accounts by the real cost of ``batch``, and update the estimate for the next."""
        count = len(batch.windows)
        share = device_seconds / count
        estimate = self._estimate(batch.windows[0])
        for candidate in batch.windows:
            self._deficit[candidate.tenant] = self._deficit.get(candidate.tenant, 0.0) - (share - estimate)
        measured = device_seconds / (count + self._fixed) * SAMPLE_RATE / batch.padded
        self._cost[batch.kind] += _SMOOTHING * (measured - self._cost[batch.kind])

    def _longest(self, first: Candidate, waiting: Sequence[Candidate]) -> float:
        """Return the most device seconds of a batch. Nothing can interrupt it, so they are few while people watch."""
        live = any(c.latency is Latency.LIVE for c in waiting)
        self._live_plans = _LIVE_PLANS if live else max(0, self._live_plans - 1)
        if first.latency is Latency.LIVE:
            return LONGEST_BATCH
        return FILES_BESIDE_LIVE if self._live_plans else math.inf

    def _fitting(self, first: Candidate, longest: float) -> int:
        """Return how many windows of ``first``'s kind and length fit into ``longest`` seconds: 1 to ``batch_size``."""
        return max(1, round(min(self._size, longest / self._estimate(first) - self._fixed)))

    def _lead_class(self, waiting: Sequence[Candidate]) -> list[Candidate]:
        """Return the windows among which the batch's first is chosen: of one latency class, and of each tenant its finals once
        one is due, otherwise its partials.

        The finals of all tenants do not go first: one tenant with enough of them would leave the others without captions
        (promise 7).
        """
        live = [c for c in waiting if c.latency is Latency.LIVE]
        files = [c for c in waiting if c.latency is Latency.BATCH]
        lead = files if files and (not live or self._batch_credit > 0) else live
        pressed = {c.tenant for c in lead if c.kind is Kind.FINAL and c.overdue_s >= 0}
        partial = {c.tenant for c in lead if c.kind is Kind.PARTIAL} - pressed
        return [c for c in lead if (c.kind is Kind.PARTIAL) == (c.tenant in partial)]

    def _take(self, tenant: str, among: Sequence[Candidate]) -> Candidate:
        """Take ``tenant``'s longest waiting window of ``among`` and charge the tenant for it.

        Waits are multiples of a frame and often equal. A random choice among them keeps some streams from always losing.
        """
        longest = max(c.overdue_s for c in among if c.tenant == tenant)
        equal = [c for c in among if c.tenant == tenant and longest - c.overdue_s < _SAME_WAIT]
        chosen = self._lots.choice(equal)
        self._deficit[tenant] = self._deficit.get(tenant, 0.0) - self._estimate(chosen)
        return chosen

    def _turn_of(self, tenants: list[str]) -> str:
        """Choose the next of ``tenants`` by deficit round robin; they are sorted and all have windows waiting."""
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
        """Choose the tenant that fills a slot that would stay empty: it takes no turn, but the tenant is charged."""
        return max(sorted({c.tenant for c in among}), key=lambda tenant: self._deficit.get(tenant, 0.0))

    def _grant(self, tenants: list[str], amount: float) -> None:
        """Give every waiting tenant ``amount`` seconds; a tenant not in ``tenants`` works off debts but saves nothing."""
        for tenant in set(self._deficit) | set(tenants):
            had = self._deficit.get(tenant, 0.0)
            self._deficit[tenant] = had + amount if tenant in tenants else max(had, min(had + amount, 0.0))

    def _drop_savings(self, present: set[str]) -> None:
        """Keep the debt, not the savings, of a tenant with nothing waiting; forget one without debt."""
        self._deficit = {t: d for t, d in self._deficit.items() if t in present or d < 0}

    def _credit(self, chosen: Sequence[Candidate], waiting: Sequence[Candidate]) -> None:
        """Update the account that gives waiting files their share."""
        if not any(c.latency is Latency.BATCH for c in waiting):
            self._batch_credit = min(self._batch_credit, 0.0)
            return
        total = self.estimate(chosen[0].kind, chosen[0].padded, len(chosen))
        files = total if chosen[0].latency is Latency.BATCH else 0.0
        credit = self._batch_credit + BATCH_SHARE * total - files
        self._batch_credit = min(max(credit, -_CREDIT_LIMIT), _CREDIT_LIMIT)

    def estimate(self, kind: Kind, padded: int, windows: float) -> float:
        """Estimate the device seconds of a batch of ``windows`` of ``padded`` samples."""
        return (windows + self._fixed) * self._cost[kind] * padded / SAMPLE_RATE

    def _estimate(self, candidate: Candidate) -> float:
        """Estimate the device seconds of one more window like ``candidate``."""
        return self._cost[candidate.kind] * candidate.padded / SAMPLE_RATE
