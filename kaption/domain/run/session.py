"""One run as a state machine without I/O, clock or model: records in, windows to decode out, transcripts out.

``feed(record)``, ``wants(now)``, ``begin(window)``, ``apply(result)``: whatever the slicing, repetition or redelivery of
its records, a run gives the same finals. Where a segment ends is decided in ``segmenter``; order and losses in
``ordering``; what is decoded when in ``windows``; what may be published of a text in ``publication``; what a restart
needs in ``snapshots``.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kaption.domain.decoding.port import SAMPLE_RATE, Decoded, Window
from kaption.domain.records import AudioRecord, Latency, Output, Refused, RunKey
from kaption.domain.run.config import Ports, Progress, SessionConfig, Wanted
from kaption.domain.run.frame_check import FrameCheck, began_ms
from kaption.domain.run.ledger import Item, Ledger
from kaption.domain.run.ordering import Frame, FrameOrder, Missing, Step
from kaption.domain.run.publication import Publication, RunFacts
from kaption.domain.run.resample import to_source
from kaption.domain.run.snapshots import RunState, load_track, save_track, text_before
from kaption.domain.run.track import Checkpoint, Early, Segment, Track
from kaption.domain.run.windows import Windows, undecoded
from kaption_schemas.reasons import Reason
from kaption_schemas.records import Gap, RunOptions, StreamCompleted, StreamEnded, StreamStarted
from kaption_schemas.topics import Type

#: Silence that a publisher left out is fed in pieces of this many seconds, so that it needs no gigabyte.
_PIECE_SECONDS = 10
#: Of more than this only as much as half of it is fed, whatever its length: an hour would keep the worker's loop for seconds.
_LONG_SECONDS = 60
#: What is fed of it right before the next frame: more than a segment takes from before its speech.
_LEAD_SECONDS = 2


class Session:
    """One run, all its channels. Times are milliseconds of the broker's clock."""

    def __init__(self, key: RunKey, latency: Latency, config: SessionConfig, ports: Ports) -> None:
        self.key = key
        self.latency = latency
        self.epoch = 0
        self.closed = False
        self.options = RunOptions(redaction=config.redaction)
        self.rate = SAMPLE_RATE
        self.channels = 1
        self.next_sample = 0
        self.order = FrameOrder(latency)
        self.tracks: list[Track] = []
        self.publications: list[Publication] = []
        self.progress = Progress()
        self.config = config
        self.ports = ports
        self.ledger = Ledger()
        self._fed_ms: int | None = None
        self._due: list[Output] = []
        self._windows = Windows(latency, config)

    @property
    def ended(self) -> bool:
        """Whether no more audio comes: what is left are the last finals."""
        return self.progress.closing is not None

    @property
    def next_sequence(self) -> int:
        """The sequence that is awaited."""
        return self.order.next

    @property
    def newest_ms(self) -> int:
        """When the broker received the newest record that was taken, in ms since 1970; -1 before the first."""
        return self.order.newest_ms

    @property
    def last_offset(self) -> int:
        """Offset of the last record that was fed, to an earlier owner too; -1 before the first."""
        return self.progress.last_offset

    @property
    def undecided(self) -> set[int]:
        """Offsets of the records that wait for one before them: they may still be refused."""
        return {record.offset for record in self.order.waiting}

    # -- records in ------------------------------------------------------------------------------------------------

    def feed(self, record: AudioRecord) -> list[Output]:
        """Take a record of the run. Its own faults come back as dead letters; the run goes on."""
        # A replay makes the idle cuts again that lie in it, though newer records are known of.
        self._pass_time(record.timestamp_ms, self._fed_ms or self.progress.last_ms)
        out = self._advance()
        self._fed_ms = record.timestamp_ms
        replayed = record.offset <= self.progress.last_offset
        self.progress.last_offset = max(self.progress.last_offset, record.offset)
        self.progress.last_ms = max(self.progress.last_ms, record.timestamp_ms)
        if self.closed or self.progress.closing:
            # An end of what is over tells nothing new, and what the others stand for has a dead letter of its own.
            silent = self.order.again(record) or replayed or record.kind in (Type.ENDED, Type.GAP, Type.REFUSED)
            return out if silent else [*out, Refused(record.offset, Reason.RUN_CLOSED)]
        self.progress.idle_cut = False
        for track in self.tracks:
            track.resting = False
        repeats = self.order.repeats
        match record.said:
            case StreamStarted() as started:
                out += self._on_started(record, started)
            case StreamEnded() as ended:
                out += self._on_ended(record, ended)
            case None if record.kind is Type.REFUSED:
                out += self._on_refused(record)
            case None:
                out += self._on_audio(record, replayed=replayed)
        if replayed:
            self.order.repeats = repeats
        return out + self._advance()

    def tick(self, now_ms: int) -> list[Output]:
        """Let time pass: finalise and close idle runs, and stop waiting for what an ended run still lacks.

        ``now_ms`` is by the clock of the records' ``timestamp_ms``: that of the last one, or later where no more of them are in the log.
        """
        self._pass_time(now_ms, self.progress.last_ms)
        return self._advance()

    def close(self, reason: Reason, now_ms: int) -> None:
        """End the run now; its last finals and ``completed`` come through ``apply`` or ``tick``."""
        self._pass_time(now_ms, self._fed_ms or self.progress.last_ms)  # as ticks may have done before, or not
        if not self.closed and not self.progress.closing:
            self._end(reason, now_ms)

    def _pass_time(self, now_ms: int, since_ms: int) -> None:
        """Do what is due when nothing has come since ``since_ms``."""
        progress, config = self.progress, self.config
        if self.closed or progress.closing or not progress.last_ms:
            return
        idle = (now_ms - since_ms) / 1000
        if progress.ended and (now_ms - progress.ended_ms) / 1000 >= config.ended_wait:
            self._end(Reason.ENDED, now_ms)
        elif idle >= min(config.idle_of(self.latency), ends := config.close_of(self.latency, heard=progress.framed)):
            self._idle_cut(now_ms)
            if idle >= ends and not progress.closing:
                self._end(Reason.IDLE, now_ms)
        elif idle >= config.rest:
            for track in self.tracks:
                track.resting = True

    def _idle_cut(self, now_ms: int) -> None:
        """Nobody waits any longer for what is missing, nor for more of what is being said."""
        if self.progress.idle_cut:
            return
        self.progress.idle_cut = True
        self._due += self._steps(self.order.flush(), now_ms)
        for track in self.tracks if not self.progress.closing else ():
            track.rest(now_ms, self._mark)

    def note_loss(self) -> None:
        """The log lost records since the snapshot that this session was restored from."""
        self.order.note_loss()

    # -- windows out, results in -----------------------------------------------------------------------------------

    def wants(self, now_ms: int) -> list[Wanted]:
        """What could be decoded now and is not in flight: finals in order, and the newest partial of each channel."""
        return self._windows.wants(self.tracks, now_ms)

    def begin(self, window_id: int) -> Window:
        """Copy a wanted window's audio out and count it as in flight. Raises ``ValueError`` for one that is not wanted."""
        return self._windows.begin(window_id, self.tracks, self.publications, self.options)

    def abandon(self, window_id: int) -> None:
        """A window's batch was not decoded: it is wanted again."""
        self._windows.abandon(window_id)

    def fail(self, window_id: int, *, hung: bool) -> list[Output] | None:
        """The model failed on a window's batch, or hung: it is wanted again, alone (None), or is given up, and what follows."""
        return None if self._windows.fail(window_id, hung=hung) else self._advance()

    def apply(self, window_id: int, decoded: Decoded, now_ms: int) -> list[Output]:  # noqa: ARG002  # the pool's port
        """Take a result; one that came too late for its segment changes nothing."""
        ended = self._windows.end(window_id)
        if ended is None:
            return []
        channel, what = ended
        track = self.tracks[channel]
        segment = what if isinstance(what, Segment) else track.closed_at(what.end) if what.early else None
        if segment is not None:
            segment.decoded = decoded
            return self._advance()
        if isinstance(what, Segment) or what.open is not track.open:
            return []  # it was cut elsewhere, or nothing was said
        if what.early:
            track.open.early = Early(what.end, decoded)
        if not decoded.text or what.heard < what.open.heard:
            return []  # two are in flight at times, and what is shown must not go back to what the older one heard
        what.open.heard = what.heard
        partial = self.publications[channel].partial(track, what.whole(decoded), what.end, self.epoch)
        what.settle(decoded)
        return [partial] if partial else []

    # -- what a commit needs ---------------------------------------------------------------------------------------

    def settled_offset(self) -> int | None:
        """The offset of the oldest record that no final, gap or dead letter covers; None when there is none."""
        if self.closed:
            return None
        offsets = (self.ledger.oldest, self.progress.ended_offset, *(record.offset for record in self.order.waiting))
        return min((offset for offset in offsets if offset is not None), default=None)

    def drafted(self) -> None:
        """What was returned so far is in a transaction that begins."""
        for track in self.tracks:
            track.drafted()

    def committed(self) -> None:
        """The last transaction that was drafted is committed."""
        for track in self.tracks:
            track.committed()

    def backlog_seconds(self) -> float:
        """Audio that waits for its final: from the first speech that no final covers."""
        return max(((self.next_sample - track.waits_from) / self.rate for track in self.tracks), default=0.0)

    def undecoded(self) -> bool:
        """Whether a closed segment waits for its decode, or is in it."""
        return any(undecoded(track) for track in self.tracks)

    # -- events ----------------------------------------------------------------------------------------------------

    def _on_started(self, record: AudioRecord, body: StreamStarted) -> list[Output]:
        options, model = body.options, self.ports.model
        if options.redaction is None:
            options = options.model_copy(update={"redaction": self.config.redaction})
        asked = (options, body.format.rate, body.format.channels)
        if self.progress.started or self.progress.framed:
            same = self.progress.started and asked == (self.options, self.rate, self.channels)
            again = same or self.latency is Latency.BATCH
            self.order.repeats += again
            return [] if again else [Refused(record.offset, Reason.ALREADY_STARTED)]
        self.progress.started = True
        self.order.took(record)
        self.progress.first_received_ms = record.received_ms
        self.options, self.rate, self.channels = asked
        refusal = None
        if options.language != "auto" and options.language not in model.languages:
            refusal = Reason.UNSUPPORTED_LANGUAGE
        elif options.task not in model.tasks:
            refusal = Reason.UNSUPPORTED_TASK
        if refusal:
            self._end(refusal, record.timestamp_ms)
            return [Refused(record.offset, refusal)]
        return []

    def _on_refused(self, record: AudioRecord) -> list[Output]:
        """Close the run: what it asked for is not known. One that had begun by then is no other run's for it."""
        if self.progress.started or self.progress.framed:
            return []
        out = self._steps(self.order.discard(Reason.RUN_CLOSED), record.timestamp_ms)
        self._end(record.reason or Reason.UNKNOWN_REASON, record.timestamp_ms)
        return out

    def _on_ended(self, record: AudioRecord, body: StreamEnded) -> list[Output]:
        if self.progress.ended:
            return []
        if body.last_sequence < self.order.highest:
            return [Refused(record.offset, Reason.BAD_END)]
        self.progress.ended = body
        self.order.took(record)
        self.progress.ended_offset = record.offset
        self.progress.ended_ms = record.timestamp_ms
        if body.last_sequence < self.order.next:
            self._end(Reason.ENDED, record.timestamp_ms)
        return []

    def _on_audio(self, record: AudioRecord, *, replayed: bool) -> list[Output]:
        gap, ended = record.kind is Type.GAP, self.progress.ended
        if ended and record.sequence > ended.last_sequence:
            return [] if gap or replayed else [Refused(record.offset, Reason.RUN_CLOSED)]
        steps = self.order.push(record)
        # What an earlier owner of the lane refused at once it has told; it may have awaited a lower sequence then.
        steps = [step for step in steps if not (replayed and isinstance(step, Refused))]
        out = self._steps(steps, record.timestamp_ms)
        if ended and self.order.next > ended.last_sequence and not self.progress.closing:
            self._end(Reason.ENDED, record.timestamp_ms)
        return out

    # -- frames in their order -------------------------------------------------------------------------------------

    def _steps(self, steps: list[Step], now_ms: int) -> list[Output]:
        out: list[Output] = []
        for step in steps:
            if isinstance(step, Refused):
                out.append(step)
            elif self.progress.closing:  # by a frame before it
                out += [Refused(step.record.offset, Reason.RUN_CLOSED)] if isinstance(step, Frame) else []
            elif isinstance(step, Missing):
                self.ledger.missing(step)
            else:
                out += self._take(step.record, now_ms)
        return out

    def _take(self, record: AudioRecord, now_ms: int) -> list[Output]:
        """Take a frame whose turn it is, or refuse it."""
        if refusal := self._frame_check().refusal(record):
            self.ledger.missing(Missing(record.sequence, record.sequence, refusal, record.offset))
            out: list[Output] = [Refused(record.offset, refusal)]
            if refusal is Reason.FASTER_THAN_REALTIME:
                out += self._steps(self.order.discard(Reason.RUN_CLOSED), now_ms)
                self._end(refusal, now_ms)
            return out
        if not self.tracks:
            self._begin_audio(record)
        self.ledger.close_gaps(self.next_sample, record.first_sample)
        self.ledger.frame(record.offset, record.sequence, self.next_sample, record.first_sample + record.samples)
        self._left_out(record.first_sample, now_ms)
        self._samples(np.frombuffer(record.body, "<i2").reshape(-1, self.channels), now_ms)
        return []

    def _frame_check(self) -> FrameCheck:
        known = self.progress.started or self.progress.framed
        began = self.progress.first_received_ms if self.latency is Latency.LIVE else None
        form = (self.rate, self.channels) if known else None
        return FrameCheck(form, self.next_sample, began, self.config.ahead, self.ledger.retention)

    def _left_out(self, end: int, now_ms: int) -> None:
        """Feed the silence up to sample ``end``, which a publisher left out; of a long one the beginning and the end."""
        if end - self.next_sample > _LONG_SECONDS * self.rate:
            self._silence(self.next_sample + _LONG_SECONDS // 2 * self.rate, now_ms)
            for track in self.tracks:
                track.leap(end - _LEAD_SECONDS * self.rate, now_ms, self._mark)
            reached = min(track.source_end for track in self.tracks)  # a restored one may have more than this
            self.next_sample = max(self.next_sample, min(reached, end))
        self._silence(end, now_ms)

    def _silence(self, end: int, now_ms: int) -> None:
        while self.next_sample < end:
            piece = min(end - self.next_sample, _PIECE_SECONDS * self.rate)
            self._samples(np.zeros((piece, self.channels), np.int16), now_ms)

    def _samples(self, pcm: npt.NDArray[np.int16], now_ms: int) -> None:
        first = self.next_sample
        self.next_sample += len(pcm)
        if len(self.tracks) == 1 and self.channels > 1:
            self.tracks[0].feed_both(pcm, first, now_ms, self._mark)
            return
        for channel, track in enumerate(self.tracks):
            track.feed(pcm[:, channel], first, now_ms, self._mark)

    def _begin_audio(self, record: AudioRecord) -> None:
        self.rate, self.channels = record.rate, record.channels
        self.progress.framed = True
        if self.progress.first_received_ms is None:
            self.progress.first_received_ms = began_ms(record)
        self._make_tracks()

    def _make_tracks(self) -> None:
        for channel in range(self._transcripts):
            self.tracks.append(Track(self.rate, self.ports.detector, self.config.rules_of(self.latency)))
            self.publications.append(
                Publication(self._facts(channel), self.ports.redactor, self.tracks[channel].checkpoint)
            )

    @property
    def _transcripts(self) -> int:
        """How many channels have a transcript of their own."""
        return self.channels if self.options.channels == "split" else 1

    def _facts(self, channel: int) -> RunFacts:
        entities, prompt = self.options.redaction or (), self.config.prompt_seconds
        return RunFacts(self.key, channel, self.rate, entities, self.ports.model, prompt, self._transcripts)

    def _mark(self, sample: int) -> tuple[int, int]:
        """Where a replay begins for a cut at ``sample``; see ``Ledger.mark``."""
        return self.ledger.mark(sample, self.next_sample)

    # -- the end ---------------------------------------------------------------------------------------------------

    def _end(self, reason: Reason, now_ms: int) -> None:
        ended = self.progress.ended
        if reason is Reason.ENDED and ended and ended.reason == Reason.ABORTED:
            reason = Reason.ABORTED
        self._due += self._steps(self.order.flush(ended.last_sequence if ended else None), now_ms)
        if self.progress.closing:
            return  # one of these was too far ahead of the clock
        self.ledger.close_gaps(self.next_sample, self.next_sample)
        self.progress.closing = reason
        for track in self.tracks:
            track.finish(self.next_sample, now_ms, self._mark)

    def _advance(self) -> list[Output]:
        """Publish what is decided: finals in order, the gaps that they cover, and the end."""
        out, self._due = self._due, []
        closing = self.progress.closing is not None
        for track, publication in zip(self.tracks, self.publications, strict=True):
            for final in publication.advance(track, closing=closing):
                if final.quality and final.quality.suppressed == Reason.DECODE_FAILED:
                    frames = self.ledger.holding(final.start_sample, final.end_sample, Reason.DECODE_FAILED)
                    out.append(self._gap(frames, final.start_sample, final.end_sample, final.channel))
                out.append(final)
        out = [*self._settle(), *out]
        if closing and not self.closed and not any(track.segments for track in self.tracks):
            out += self._complete()
        return out

    def _settle(self) -> list[Output]:
        """Forget what every channel's finals cover, and publish the gaps among it."""
        done = self._done()
        if done is None:
            return []
        over = self.progress.closing is not None and not any(track.segments for track in self.tracks)
        self.order.forget(done.sequence)
        return self._gaps(self.ledger.settle(None if over else done.sequence))

    def _gaps(self, items: Sequence[Item]) -> list[Output]:
        return [self._gap(item.gap, item.start, item.end) for item in items if item.gap]

    def _gap(self, gap: Missing, start: int, end: int, channel: int = 0) -> Gap:
        self.progress.gaps += 1
        return Gap(
            run=self.key.run, tenant=self.key.tenant, stream=self.key.stream, channel=channel, reason=gap.reason,
            first_sequence=gap.first, last_sequence=gap.last, first_sample=start, samples=end - start,
        )  # fmt: skip

    def _complete(self) -> list[Output]:
        self.closed = True
        self.progress.ended_offset = None
        out: list[Output] = []
        if not self.tracks:
            out += self._gaps(self.ledger.settle(None))
        counts = [track.next_index for track in self.tracks] or [0]
        for channel, count in enumerate(counts):
            out.append(
                StreamCompleted(
                    tenant=self.key.tenant, stream=self.key.stream, run=self.key.run, channel=channel, segments=count,
                    samples=self.next_sample, rate=self.rate, duration_ms=self.next_sample * 1000 // self.rate,
                    reason=self.progress.closing or Reason.ENDED, gaps=self.progress.gaps, repeats=self.order.repeats,
                    metadata=self.options.metadata, replaces=self.options.replaces,
                )
            )  # fmt: skip
        return out

    # -- snapshots -------------------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """What ``restore`` needs, consistent with ``settled_offset`` and with every durable output so far."""
        progress = self.progress
        done = self._done()
        saved = RunState(
            tenant=self.key.tenant, stream=self.key.stream, run=self.key.run, latency=self.latency, options=self.options,
            model=self.ports.model.digest, rate=self.rate, channels=self.channels, started=progress.started, framed=progress.framed,
            closed=progress.closing if self.closed else None, last_ms=progress.last_ms,
            first_received_ms=progress.first_received_ms, last_offset=progress.last_offset, gaps=progress.gaps,
            repeats=self.order.repeats, newest_ms=self.order.newest_ms,
            next_sequence=done.sequence if done else self.order.first,
            next_sample=done.sample if done else 0,
            seen={n: d.hex() for n, d in self.order.seen_before(done.sequence).items()} if done and not self.closed else {},
            tracks=() if self.closed else tuple(map(save_track, self.tracks, self.publications)),
        )  # fmt: skip
        return saved.model_dump_json().encode()

    @classmethod
    def restore(cls, snapshot: bytes, config: SessionConfig, ports: Ports) -> "Session":
        """A session as it was at its last commit; over, where other weights are loaded now. Raises ``SnapshotError``."""
        saved = RunState.read(snapshot)
        self = cls(RunKey(saved.tenant, saved.stream, saved.run), saved.latency, config, ports)
        self.options, self.rate, self.channels = saved.options, saved.rate, saved.channels
        self.closed = saved.closed is not None
        self.progress = Progress(
            started=saved.started, framed=saved.framed, closing=saved.closed, last_ms=saved.last_ms,
            first_received_ms=saved.first_received_ms, last_offset=saved.last_offset, gaps=saved.gaps,
        )  # fmt: skip
        seen = {n: bytes.fromhex(d) for n, d in saved.seen.items()}
        self.order = FrameOrder(saved.latency, saved.next_sequence, seen)
        self.order.repeats, self.order.newest_ms = saved.repeats, saved.newest_ms
        self.ledger = Ledger(saved.next_sequence)
        self.next_sample = saved.next_sample
        for channel, state in enumerate(saved.tracks):
            track = load_track(state, self.rate, ports.detector, config.rules_of(self.latency))
            publication = Publication(self._facts(channel), ports.redactor, track.checkpoint)
            publication.last_text, publication.last_end = state.prompt, state.prompt_end
            publication.before = text_before(state)
            self.tracks.append(track)
            self.publications.append(publication)
        if not self.closed and saved.model not in ("", ports.model.digest):
            # Not even its language is sure now; its finals so far say which weights they are of (adr/0029).
            ends = [to_source(track.checkpoint.position, self.rate) for track in self.tracks]
            self.next_sample = max([self.next_sample, *ends])
            self._end(Reason.MODEL_CHANGED, saved.last_ms)
        return self

    def _done(self) -> Checkpoint | None:
        """The earliest of the channels' checkpoints: a replay begins there."""
        return min((p.done for p in self.publications), key=lambda c: (c.sequence, c.sample), default=None)
