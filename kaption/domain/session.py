"""One run as a state machine without I/O, clock or model: records in, windows to decode out, transcripts out.

``feed(record)``, ``wants(now)``, ``begin(window)``, ``apply(result)``: whatever the slicing, repetition or redelivery of
its records, a run gives the same finals. Where a segment ends is decided in ``segmenter``; order and losses in
``ordering``; what is decoded when in ``windows``; what may be published of a text in ``publication``; what a restart
needs in ``snapshots``.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kaption.domain.decoding import SAMPLE_RATE, Decoded, Window
from kaption.domain.ledger import Item, Ledger
from kaption.domain.ordering import Frame, FrameOrder, Missing, Refused, Step, published_again
from kaption.domain.outputs import AudioRecord, DeadLetter, Latency, Output, RunKey
from kaption.domain.publication import Publication, RunFacts
from kaption.domain.run import Ports, Progress, SessionConfig, Wanted
from kaption.domain.snapshots import RunState, load_track, save_track
from kaption.domain.track import Checkpoint, Early, Segment, Track
from kaption.domain.windows import Windows, undecoded
from kaption_schemas.reasons import Reason
from kaption_schemas.records import Gap, RunOptions, StreamCompleted, StreamEnded, StreamRefused, StreamStarted
from kaption_schemas.topics import Type

#: Silence that a publisher left out is fed in pieces of this many seconds, so that an hour needs no gigabyte.
_PIECE_SECONDS = 10
#: A jump of a live run's samples beyond the clock by more than this is a mistake, not audio sent early.
_JUMP_SECONDS = 1
_LONGEST_JUMP_SECONDS = 3600


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
        self.order = FrameOrder()
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
    def undecided(self) -> set[int]:
        """Offsets of the records that wait for one before them: they may still be refused."""
        return {record.offset for record in self.order.waiting}

    # -- records in ------------------------------------------------------------------------------------------------

    def feed(self, record: AudioRecord) -> list[Output]:
        """Take a record of the run. Its own faults come back as dead letters; the run goes on."""
        # A replay makes the idle cuts again that lie in it, though newer records are known of.
        out = self._pass_time(record.timestamp_ms, self._fed_ms or self.progress.last_ms)
        self._fed_ms = record.timestamp_ms
        replayed = record.offset <= self.progress.last_offset
        self.progress.last_offset = max(self.progress.last_offset, record.offset)
        self.progress.last_ms = max(self.progress.last_ms, record.timestamp_ms)
        if self.closed or self.progress.closing:
            again = self._again(record)
            self.order.repeats += again and not replayed
            # An end of what is over tells nothing new, and what the others stand for has a dead letter of its own.
            silent = again or replayed or record.kind in (Type.ENDED, Type.GAP, Type.REFUSED)
            return out if silent else [*out, DeadLetter(record.offset, Reason.RUN_CLOSED)]
        self.progress.idle_cut = False
        handlers = {Type.STARTED: self._on_started, Type.ENDED: self._on_ended, Type.REFUSED: self._on_refused}
        handle = handlers.get(record.kind, self._on_audio)
        repeats = self.order.repeats
        out += handle(record)
        if replayed:
            self.order.repeats = repeats
        return out + self._advance()

    def tick(self, now_ms: int) -> list[Output]:
        """Let time pass: finalise and close idle runs, and stop waiting for what an ended run still lacks."""
        return self._pass_time(now_ms, self.progress.last_ms)

    def _pass_time(self, now_ms: int, since_ms: int) -> list[Output]:
        progress, config = self.progress, self.config
        if self.closed or not (progress.last_ms or progress.closing):
            return []
        idle = (now_ms - since_ms) / 1000
        out: list[Output] = []
        if not progress.closing:
            if progress.ended and (now_ms - progress.ended_ms) / 1000 >= config.ended_wait:
                self._end(Reason.ENDED, now_ms)
            elif idle >= config.idle_close:
                self._end(Reason.IDLE, now_ms)
            elif idle >= config.idle_final and not progress.idle_cut:
                progress.idle_cut = True
                out += self._steps(self.order.flush(), now_ms)
                for track in self.tracks:
                    track.rest(now_ms, self._mark)
        return out + self._advance()

    def close(self, reason: Reason, now_ms: int) -> None:
        """End the run now; its last finals and ``completed`` come through ``apply`` or ``tick``."""
        if not self.closed and not self.progress.closing:
            self._end(reason, now_ms)

    def note_loss(self) -> None:
        """The log lost records since the snapshot that this session was restored from."""
        self.order.note_loss()

    # -- windows out, results in -----------------------------------------------------------------------------------

    def wants(self, now_ms: int) -> list[Wanted]:
        """What could be decoded now and is not in flight: finals in order, and the newest partial of each channel."""
        return self._windows.wants(self.tracks, now_ms)

    def begin(self, window_id: int) -> Window:
        """Copy a wanted window's audio out and count it as in flight."""
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

    def _on_started(self, record: AudioRecord) -> list[Output]:
        if self.progress.started or self.progress.framed:
            again = self._again(record)
            self.order.repeats += again
            return [] if again else [DeadLetter(record.offset, Reason.ALREADY_STARTED)]
        body = StreamStarted.model_validate_json(record.body)
        options, model = body.options, self.ports.model
        self.progress.started = True
        if options.redaction is None:
            options = options.model_copy(update={"redaction": self.config.redaction})
        self.options = options
        self.rate, self.channels = body.format.rate, body.format.channels
        refusal = None
        if options.language != "auto" and options.language not in model.languages:
            refusal = Reason.UNSUPPORTED_LANGUAGE
        elif options.task not in model.tasks:
            refusal = Reason.UNSUPPORTED_TASK
        if refusal:
            self._end(refusal, record.timestamp_ms)
            return [DeadLetter(record.offset, refusal)]
        return []

    def _on_refused(self, record: AudioRecord) -> list[Output]:
        """Close the run: what it asked for is not known. One that had begun by then is no other run's for it."""
        if self.progress.started or self.progress.framed:
            return []
        out = self._steps(self.order.discard(Reason.RUN_CLOSED), record.timestamp_ms)
        self._end(StreamRefused.model_validate_json(record.body).reason, record.timestamp_ms)
        return out

    def _on_ended(self, record: AudioRecord) -> list[Output]:
        if self.progress.ended:
            return []
        body = StreamEnded.model_validate_json(record.body)
        if body.last_sequence < self.order.highest:
            return [DeadLetter(record.offset, Reason.BAD_END)]
        self.progress.ended = body
        self.progress.ended_offset = record.offset
        self.progress.ended_ms = record.timestamp_ms
        if body.last_sequence < self.order.next:
            self._end(Reason.ENDED, record.timestamp_ms)
        return []

    def _again(self, record: AudioRecord) -> bool:
        return published_again(record, self.latency, self.next_sequence)

    def _on_audio(self, record: AudioRecord) -> list[Output]:
        refusal = self._refusal(record)
        out: list[Output] = []
        if refusal:
            out.append(DeadLetter(record.offset, refusal))
            if refusal is Reason.FASTER_THAN_REALTIME:
                self._end(refusal, record.timestamp_ms)
                return out
            record = record.as_gap(refusal)
        elif record.kind is Type.GAP:
            record = record.as_gap(Gap.model_validate_json(record.body).reason)
        out += self._steps(self.order.push(record), record.timestamp_ms)
        ended = self.progress.ended
        if ended and self.order.next > ended.last_sequence:
            self._end(Reason.ENDED, record.timestamp_ms)
        return out

    def _refusal(self, record: AudioRecord) -> Reason | None:
        """Why a frame cannot be used, judged when it arrives."""
        if record.kind is Type.GAP:
            return None
        ended = self.progress.ended
        if ended and record.sequence > ended.last_sequence:
            return Reason.RUN_CLOSED
        known = self.progress.started or self.progress.framed
        if known and (record.rate, record.channels) != (self.rate, self.channels):
            return Reason.FORMAT_CHANGED
        if record.first_sample - self.next_sample > _LONGEST_JUMP_SECONDS * record.rate:
            return Reason.SAMPLES_JUMP
        return self._pace(record) if self.latency is Latency.LIVE else None

    def _pace(self, record: AudioRecord) -> Reason | None:
        """Whether a live frame lies ahead of the clock, by one jump or by being sent too fast."""
        if self.progress.first_received_ms is None:
            self.progress.first_received_ms = record.received_ms - record.samples * 1000 // record.rate
        clock = (record.received_ms - self.progress.first_received_ms) / 1000
        if (record.first_sample + record.samples) / record.rate - clock <= self.config.ahead:
            return None
        jump = record.first_sample - self.next_sample
        return Reason.SAMPLES_JUMP if jump > _JUMP_SECONDS * record.rate else Reason.FASTER_THAN_REALTIME

    # -- frames in their order -------------------------------------------------------------------------------------

    def _steps(self, steps: list[Step], now_ms: int) -> list[Output]:
        out: list[Output] = []
        for step in steps:
            if isinstance(step, Refused):
                out.append(DeadLetter(step.record.offset, step.reason))
            elif isinstance(step, Missing):
                self.ledger.missing(step)
            else:
                out += self._take(step, now_ms)
        return out

    def _take(self, frame: Frame, now_ms: int) -> list[Output]:
        record = frame.record
        if not self.tracks:
            self._begin_audio(record)
        if record.first_sample < self.next_sample:
            self.ledger.missing(Missing(record.sequence, record.sequence, Reason.SAMPLES_OVERLAP))
            return [DeadLetter(record.offset, Reason.SAMPLES_OVERLAP)]
        self.ledger.close_gaps(self.next_sample, record.first_sample)
        self.ledger.frame(record.offset, record.sequence, self.next_sample, record.first_sample + record.samples)
        while self.next_sample < record.first_sample:
            piece = min(record.first_sample - self.next_sample, _PIECE_SECONDS * self.rate)
            self._samples(np.zeros((piece, self.channels), np.int16), now_ms)
        self._samples(np.frombuffer(record.body, "<i2").reshape(-1, self.channels), now_ms)
        return []

    def _samples(self, pcm: npt.NDArray[np.int16], now_ms: int) -> None:
        first = self.next_sample
        self.next_sample += len(pcm)
        if len(self.tracks) == 1 and self.channels > 1:
            self.tracks[0].feed(pcm.mean(axis=1).astype(np.int16), first, now_ms, self._mark)
            return
        for channel, track in enumerate(self.tracks):
            track.feed(pcm[:, channel], first, now_ms, self._mark)

    def _begin_audio(self, record: AudioRecord) -> None:
        self.rate, self.channels = record.rate, record.channels
        self.progress.framed = True
        self._make_tracks()

    def _make_tracks(self) -> None:
        count = self.channels if self.options.channels == "split" else 1
        for channel in range(count):
            self.tracks.append(Track(self.rate, self.ports.detector, self.config.rules_of(self.latency)))
            self.publications.append(
                Publication(self._facts(channel), self.ports.redactor, self.tracks[channel].checkpoint)
            )

    def _facts(self, channel: int) -> RunFacts:
        entities = self.options.redaction or ()
        return RunFacts(self.key, channel, self.rate, entities, self.ports.model, self.config.prompt_seconds)

    def _mark(self, sample: int) -> tuple[int, int]:
        """Where a replay begins for a cut at ``sample``; see ``Ledger.mark``."""
        return self.ledger.mark(sample, self.order.next, self.next_sample)

    # -- the end ---------------------------------------------------------------------------------------------------

    def _end(self, reason: Reason, now_ms: int) -> None:
        ended = self.progress.ended
        self._due += self._steps(self.order.flush(ended.last_sequence if ended else None), now_ms)
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
            rate=self.rate, channels=self.channels, started=progress.started, framed=progress.framed,
            closed=progress.closing if self.closed else None, last_ms=progress.last_ms,
            first_received_ms=progress.first_received_ms, last_offset=progress.last_offset, gaps=progress.gaps,
            repeats=self.order.repeats, next_sequence=done.sequence if done else self.order.first,
            next_sample=done.sample if done else 0,
            seen={n: d.hex() for n, d in self.order.seen_before(done.sequence).items()} if done and not self.closed else {},
            tracks=() if self.closed else tuple(map(save_track, self.tracks, self.publications)),
        )  # fmt: skip
        return saved.model_dump_json().encode()

    @classmethod
    def restore(cls, snapshot: bytes, config: SessionConfig, ports: Ports) -> "Session":
        """A session as it was at its last commit. Raises ``SnapshotError``."""
        saved = RunState.read(snapshot)
        self = cls(RunKey(saved.tenant, saved.stream, saved.run), saved.latency, config, ports)
        self.options, self.rate, self.channels = saved.options, saved.rate, saved.channels
        self.closed = saved.closed is not None
        self.progress = Progress(
            started=saved.started, framed=saved.framed, closing=saved.closed, last_ms=saved.last_ms,
            first_received_ms=saved.first_received_ms, last_offset=saved.last_offset, gaps=saved.gaps,
        )  # fmt: skip
        self.order = FrameOrder(saved.next_sequence, {n: bytes.fromhex(d) for n, d in saved.seen.items()})
        self.order.repeats = saved.repeats
        self.next_sample = saved.next_sample
        for channel, state in enumerate(saved.tracks):
            track = load_track(state, self.rate, ports.detector, config.rules_of(self.latency))
            publication = Publication(self._facts(channel), ports.redactor, track.checkpoint)
            publication.last_text, publication.last_end = state.prompt, state.prompt_end
            publication.carried = state.carried
            self.tracks.append(track)
            self.publications.append(publication)
        return self

    def _done(self) -> Checkpoint | None:
        """The earliest of the channels' checkpoints: a replay begins there."""
        return min((p.done for p in self.publications), key=lambda c: (c.sequence, c.sample), default=None)
