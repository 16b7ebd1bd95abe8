"""Runs planner and overload together on virtual time: what a pool with more and more streams sheds first (promise 5).

A batch takes the time that workers measured at their start.
"""

from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from kaption.domain.decoding.port import SAMPLE_RATE, Costs, Kind
from kaption.domain.pool.overload import Overload, Signs, Step
from kaption.domain.pool.plan import Candidate, Planner
from kaption.domain.records import Latency

FINAL_SECONDS, PARTIAL_SECONDS = 4.0, 0.4
#: "batches_calibrated" in the log of some starts of tiny.en on two cores of an Intel Xeon with AMX, 26 November 2026.
RECORDED = (Costs(0.0073, 0.53), Costs(0.0076, 0.4), Costs(0.0085, 0.68), Costs(0.0101, 0.3))


class Device:
    """One executor, with streams that each say a sentence in four seconds, and a file."""

    def __init__(self, costs: Costs, size: int) -> None:
        self.now = 0.0
        self.streams = 0
        self.owed: list[tuple[float, int]] = []
        self._costs = costs
        self._planner = Planner(size)
        self._overload = Overload()
        self._shown: dict[int, float] = {}
        self._said: dict[int, float] = {}
        self._observed = self._busy = 0.0

    def run(self, seconds: float) -> Iterator[Step]:
        """Let time pass; the step at each second."""
        end = self.now + seconds
        while self.now < end:
            self._speak()
            batch = self._planner.next(self._waiting())
            took = self.takes(len(batch.windows), batch.padded) if batch else 0.05
            self.now += took
            if batch:
                self._busy += took
                self._planner.spent(batch, took)
                for c in batch.windows:
                    if c.latency is Latency.LIVE and c.kind is Kind.FINAL:
                        self.owed.pop(next(n for n, (_, stream) in enumerate(self.owed) if stream == c.owner))
                    elif c.latency is Latency.LIVE:
                        self._shown[c.window] = self.now
            if self.now - self._observed >= 1:
                yield self._observe()

    def takes(self, windows: int, padded: int) -> float:
        """Seconds of a batch of ``windows`` of ``padded`` samples."""
        return (windows + self._costs.fixed) * self._costs.a_second * padded / SAMPLE_RATE

    def _speak(self) -> None:
        for stream in range(self.streams):
            due = self._said.setdefault(stream, self.now - FINAL_SECONDS * stream / self.streams)
            if self.now >= due + FINAL_SECONDS:
                self.owed.append((due + FINAL_SECONDS, stream))
                self._said[stream] = due + FINAL_SECONDS

    def _waiting(self) -> list[Candidate]:
        live, first = Latency.LIVE, dict[int, float]()
        for at, stream in self.owed:
            first.setdefault(stream, at)
        return [
            *(Candidate(stream, 0, "a", live, Kind.FINAL, 4, self.now - at) for stream, at in first.items()),
            *(
                Candidate(("partial", stream), stream, "a", live, Kind.PARTIAL, 3, waited)
                for stream in range(self.streams)
                if (waited := self.now - self._shown.setdefault(stream, self.now) - PARTIAL_SECONDS) >= 0
            ),
            Candidate("file", 0, "a", Latency.BATCH, Kind.FINAL, 12, 1),
        ]

    def _observe(self) -> Step:
        live = [c for c in self._waiting() if c.latency is Latency.LIVE]
        signs = Signs(
            busy=self._busy / (self.now - self._observed),
            partial_s=max((c.overdue_s for c in live if c.kind is Kind.PARTIAL), default=0.0),
            final_s=max((c.overdue_s for c in live if c.kind is Kind.FINAL), default=0.0),
            reading_s=0.0,
            files=bool(live),
        )
        self._observed, self._busy = self.now, 0.0
        self._overload.observe(self.now, signs)
        return self._overload.step


@settings(max_examples=5, deadline=None)
@given(st.sampled_from(RECORDED), st.integers(1, 8))
def test_partials_and_files_give_way_before_runs_are_refused_and_no_final_is_lost(costs: Costs, size: int) -> None:
    device = Device(costs, size)
    finals = FINAL_SECONDS * size / device.takes(size, 8 * SAMPLE_RATE)  # streams whose finals alone fill it
    device.streams = max(1, int(0.05 * finals))
    assert set(device.run(30)) == {Step.NOTHING}
    device.streams = int(0.6 * finals)
    crowded = list(device.run(60))
    assert crowded[-1] is Step.FILES_WAIT
    assert Step.RUNS_REFUSED not in crowded, "it still has time for every final"
    device.streams = int(2 * finals)
    assert list(device.run(120))[-1] is Step.RUNS_REFUSED
    device.streams = max(1, int(0.05 * finals))
    assert list(device.run(400))[-1] is Step.NOTHING
    assert not [at for at, _ in device.owed if device.now - at > 1], "what was owed is late, not lost"
