"""Collects the outputs of a run: finals in order, the gaps that they cover, and its end.

Outputs stay here until they are taken, so that nothing is lost if a later step fails.
"""

from collections.abc import Iterable, Sequence

from kaption.domain.records import Output, RunKey
from kaption.domain.run.channels import Channels
from kaption.domain.run.ledger import Item, Ledger
from kaption.domain.run.lifecycle import Lifecycle
from kaption.domain.run.ordering import FrameOrder, Missing
from kaption_schemas.reasons import Reason
from kaption_schemas.records import FinalTranscript, Gap, StreamCompleted


class Outbox:
    """Outputs of one run. ``gaps`` is the number of published gaps."""

    def __init__(
        self, key: RunKey, life: Lifecycle, order: FrameOrder, ledger: Ledger, channels: Channels, gaps: int
    ) -> None:
        self.gaps = gaps
        self._key = key
        self._life = life
        self._order = order
        self._ledger = ledger
        self._channels = channels
        self._due: list[Output] = []

    def add(self, outputs: Iterable[Output]) -> None:
        """Add outputs."""
        self._due += outputs

    def take(self) -> list[Output]:
        """Return all outputs since the last call."""
        due, self._due = self._due, []
        return due

    def advance(self) -> None:
        """Publish all that is decided: finals in order, the gaps that they cover, and the end."""
        closing = self._life.closing is not None
        out: list[Output] = []
        try:
            for track, publication in zip(self._channels.tracks, self._channels.publications, strict=True):
                for final in publication.advance(track, closing=closing):
                    out += self._with_gap(final)
        finally:
            self._due = [*self._settle(), *self._due, *out]
        if closing and not self._life.closed and not self._channels.waiting:
            self._due += self._complete()

    def give_up(self, reason: Reason) -> None:
        """Close the run after what is already published. A gap stands for the rest of each channel."""
        if self._life.closed:
            return
        channels, ledger = self._channels, self._ledger
        self._due += self._order.discard(Reason.RUN_CLOSED)
        ledger.close_gaps(channels.next_sample, channels.next_sample)
        for channel, start in enumerate(channels.uncovered):
            if start < (end := channels.next_sample):
                self._due.append(self._gap(ledger.holding(start, end, reason), start, end, channel))
        self._due += self._gaps(ledger.settle(None))
        self._life.close(reason)
        self._due += self._complete()
        channels.drop()

    def _with_gap(self, final: FinalTranscript) -> list[Output]:
        """A final. If the model failed on it, a gap precedes it."""
        if final.quality and final.quality.suppressed == Reason.DECODE_FAILED:
            frames = self._ledger.holding(final.start_sample, final.end_sample, Reason.DECODE_FAILED)
            return [self._gap(frames, final.start_sample, final.end_sample, final.channel), final]
        return [final]

    def _settle(self) -> list[Output]:
        """Drop the records that every channel's finals cover. Returns the gaps among them."""
        done = self._channels.done
        if done is None:
            return []
        over = self._life.closing is not None and not self._channels.waiting
        self._order.forget(done.sequence)
        return self._gaps(self._ledger.settle(None if over else done.sequence))

    def _gaps(self, items: Sequence[Item]) -> list[Output]:
        return [self._gap(item.gap, item.start, item.end) for item in items if item.gap]

    def _gap(self, gap: Missing, start: int, end: int, channel: int = 0) -> Gap:
        self.gaps += 1
        return Gap(
            run=self._key.run, tenant=self._key.tenant, stream=self._key.stream, channel=channel, reason=gap.reason,
            first_sequence=gap.first, last_sequence=gap.last, first_sample=start, samples=end - start,
        )  # fmt: skip

    def _complete(self) -> list[Output]:
        channels = self._channels
        self._life.complete()
        out: list[Output] = [] if channels.tracks else self._gaps(self._ledger.settle(None))
        for channel, segments in enumerate(channels.published):
            out.append(
                StreamCompleted(
                    tenant=self._key.tenant, stream=self._key.stream, run=self._key.run, channel=channel,
                    segments=segments, samples=channels.next_sample, rate=channels.rate,
                    duration_ms=channels.next_sample * 1000 // channels.rate, reason=self._life.closing or Reason.ENDED,
                    gaps=self.gaps, repeats=self._order.repeats, metadata=channels.options.metadata,
                    replaces=channels.options.replaces,
                )
            )  # fmt: skip
        return out
