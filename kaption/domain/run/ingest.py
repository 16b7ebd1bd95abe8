"""Takes or refuses a run's records by the run's state, and closes the run.

``ordering`` orders the records, ``frame_check`` checks each frame, and ``channels`` gets the audio.
"""

from collections.abc import Iterable

import numpy as np

from kaption.domain.decoding.port import ModelInfo
from kaption.domain.records import AudioRecord, Latency, Output, Refused
from kaption.domain.run.channels import Channels
from kaption.domain.run.config import SessionConfig
from kaption.domain.run.frame_check import FrameCheck
from kaption.domain.run.ledger import Ledger
from kaption.domain.run.lifecycle import Due, Lifecycle
from kaption.domain.run.ordering import Frame, FrameOrder, Missing, Step
from kaption_schemas.reasons import Reason
from kaption_schemas.records import RunOptions, StreamEnded, StreamStarted
from kaption_schemas.topics import Type


class Ingest:
    """Takes one run's records. Refused records are returned as dead letters; the run goes on."""

    def __init__(
        self,
        latency: Latency,
        config: SessionConfig,
        model: ModelInfo,
        life: Lifecycle,
        order: FrameOrder,
        ledger: Ledger,
        channels: Channels,
    ) -> None:
        self._latency = latency
        self._config = config
        self._model = model
        self._life = life
        self._order = order
        self._ledger = ledger
        self._channels = channels

    def feed(self, record: AudioRecord) -> list[Output]:
        """Take a record."""
        replayed = self._life.feed(record)
        if self._life.closed or self._life.closing:
            # A second end changes nothing, and a gap or a refusal stands for a record that has its own dead letter.
            silent = self._order.again(record) or replayed or record.kind in (Type.ENDED, Type.GAP, Type.REFUSED)
            return [] if silent else [Refused(record.offset, Reason.RUN_CLOSED)]
        self._life.wake()
        self._channels.wake()
        with self._order.uncounted(replayed=replayed):
            match record.said:
                case StreamStarted() as started:
                    return self._on_started(record, started)
                case StreamEnded() as ended:
                    return self._on_ended(record, ended)
                case None if record.kind is Type.REFUSED:
                    return self._on_refused(record)
                case None:
                    return self._on_audio(record, replayed=replayed)

    def pass_time(self, now_ms: int, since_ms: int) -> list[Output]:
        """Do what is due when no record has come since ``since_ms``."""
        due = self._life.due(now_ms, since_ms)
        if due is Due.ENDED_CLOSE:
            return self.close(Reason.ENDED, now_ms)
        if due in (Due.IDLE_CUT, Due.IDLE_CLOSE):
            out = self._idle_cut(now_ms)
            return [*out, *self.close(Reason.IDLE, now_ms)] if due is Due.IDLE_CLOSE else out
        if due is Due.REST:
            self._channels.rest()
        return []

    def close(self, reason: Reason, now_ms: int) -> list[Output]:
        """Take no more records, and close the open segments. A second call does nothing."""
        if self._life.closing:
            return []
        ended = self._life.ended
        if reason is Reason.ENDED and ended and ended.reason == Reason.ABORTED:
            reason = Reason.ABORTED
        out = self._steps(self._order.flush(ended.last_sequence if ended else None), now_ms)
        if self._life.closing:
            return out  # one of these records was too far ahead of the clock
        self._ledger.close_gaps(self._channels.next_sample, self._channels.next_sample)
        self._life.close(reason)
        self._channels.finish(now_ms)
        return out

    def _idle_cut(self, now_ms: int) -> list[Output]:
        """Stop waiting for missing records, and close the open segments."""
        if not self._life.cut():
            return []
        out = self._steps(self._order.flush(), now_ms)
        if not self._life.closing:
            self._channels.cut(now_ms)
        return out

    # -- events ----------------------------------------------------------------------------------------------------

    def _on_started(self, record: AudioRecord, body: StreamStarted) -> list[Output]:
        options, channels = body.options, self._channels
        if options.redaction is None:
            options = options.model_copy(update={"redaction": self._config.redaction})
        asked = (options, body.format.rate, body.format.channels)
        if self._life.known:
            same = self._life.started and asked == (channels.options, channels.rate, channels.count)
            if same or self._latency is Latency.BATCH:
                self._order.repeat()
                return []
            return [Refused(record.offset, Reason.ALREADY_STARTED)]
        self._life.start(record)
        self._order.took(record)
        channels.ask(*asked)
        refusal = self._unsupported(options)
        return [Refused(record.offset, refusal), *self.close(refusal, record.timestamp_ms)] if refusal else []

    def _unsupported(self, options: RunOptions) -> Reason | None:
        if options.language != "auto" and options.language not in self._model.languages:
            return Reason.UNSUPPORTED_LANGUAGE
        return None if options.task in self._model.tasks else Reason.UNSUPPORTED_TASK

    def _on_refused(self, record: AudioRecord) -> list[Output]:
        """Close the run: its options are unknown. A run that has already begun goes on: the refused record does not change it."""
        if self._life.known:
            return []
        out = self._steps(self._order.discard(Reason.RUN_CLOSED), record.timestamp_ms)
        return [*out, *self.close(record.reason or Reason.UNKNOWN_REASON, record.timestamp_ms)]

    def _on_ended(self, record: AudioRecord, body: StreamEnded) -> list[Output]:
        if self._life.ended:
            return []
        if body.last_sequence < self._order.highest:
            return [Refused(record.offset, Reason.BAD_END)]
        self._order.took(record)
        self._life.end(record, body)
        return self.close(Reason.ENDED, record.timestamp_ms) if body.last_sequence < self._order.next else []

    def _on_audio(self, record: AudioRecord, *, replayed: bool) -> list[Output]:
        gap, ended = record.kind is Type.GAP, self._life.ended
        if ended and record.sequence > ended.last_sequence:
            return [] if gap or replayed else [Refused(record.offset, Reason.RUN_CLOSED)]
        steps = self._order.push(record)
        # An earlier owner has already reported what it refused at once. It may have awaited a lower sequence then.
        steps = [step for step in steps if not (replayed and isinstance(step, Refused))]
        out = self._steps(steps, record.timestamp_ms)
        if ended and self._order.next > ended.last_sequence:
            out += self.close(Reason.ENDED, record.timestamp_ms)
        return out

    # -- frames in their order -------------------------------------------------------------------------------------

    def _steps(self, steps: Iterable[Step], now_ms: int) -> list[Output]:
        out: list[Output] = []
        for step in steps:
            if isinstance(step, Refused):
                out.append(step)
            elif self._life.closing:  # because of a frame before it
                out += [Refused(step.record.offset, Reason.RUN_CLOSED)] if isinstance(step, Frame) else []
            elif isinstance(step, Missing):
                self._ledger.missing(step)
            else:
                out += self._take(step.record, now_ms)
        return out

    def _take(self, record: AudioRecord, now_ms: int) -> list[Output]:
        """Take the next frame, or refuse it."""
        if refusal := self._frame_check().refusal(record):
            self._ledger.missing(Missing(record.sequence, record.sequence, refusal, record.offset))
            out: list[Output] = [Refused(record.offset, refusal)]
            if refusal is Reason.FASTER_THAN_REALTIME:
                out += self._steps(self._order.discard(Reason.RUN_CLOSED), now_ms)
                out += self.close(refusal, now_ms)
            return out
        channels = self._channels
        if not channels.tracks:
            self._life.frame(record)
            channels.open(record.rate, record.channels)
        self._ledger.close_gaps(channels.next_sample, record.first_sample)
        self._ledger.frame(record.offset, record.sequence, channels.next_sample, record.first_sample + record.samples)
        channels.feed_silence(record.first_sample, now_ms)
        channels.feed(np.frombuffer(record.body, "<i2").reshape(-1, channels.count), now_ms)
        return []

    def _frame_check(self) -> FrameCheck:
        channels, life = self._channels, self._life
        began = life.first_received_ms if self._latency is Latency.LIVE else None
        form = (channels.rate, channels.count) if life.known else None
        return FrameCheck(form, channels.next_sample, began, self._config.ahead, self._ledger.retention)
