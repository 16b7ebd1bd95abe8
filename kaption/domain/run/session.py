"""Runs one run as a state machine without I/O, clock or model: records in, windows to decode out, transcripts out.

Its calls are ``feed(record)``, ``wants(now)``, ``begin(window)`` and ``apply(result)``. A run gives the same finals
however its records are sliced, repeated or redelivered. ``ingest`` takes and refuses records, ``lifecycle`` keeps the
state of the run and its idle times, ``channels`` hold audio and texts, ``windows`` chooses the windows, ``outbox`` orders
the outputs, and ``snapshots`` keeps what a restart needs.
"""

from kaption.domain.decoding.port import Decoded, Window
from kaption.domain.records import AudioRecord, Latency, Output, RunKey
from kaption.domain.run.channels import Channels
from kaption.domain.run.config import Ports, SessionConfig, Wanted
from kaption.domain.run.ingest import Ingest
from kaption.domain.run.ledger import Ledger
from kaption.domain.run.lifecycle import Lifecycle
from kaption.domain.run.ordering import FrameOrder
from kaption.domain.run.outbox import Outbox
from kaption.domain.run.snapshots import RunState, save_track
from kaption.domain.run.track import Track
from kaption.domain.run.windows import Windows
from kaption_schemas.reasons import Reason
from kaption_schemas.records import RunOptions


class Session:
    """One run, all its channels. Times are milliseconds of the broker's clock.

    After one of its calls has raised, only ``give_up`` may be called.
    """

    def __init__(
        self, key: RunKey, latency: Latency, config: SessionConfig, ports: Ports, saved: RunState | None = None
    ) -> None:
        saved = saved or RunState.new(key, latency, RunOptions(redaction=config.redaction))
        seen = {n: bytes.fromhex(d) for n, d in saved.seen.items()}
        self.key = key
        self.latency = latency
        self.epoch = 0
        self.config = config
        self.ports = ports
        self._life = Lifecycle(saved, config)
        self._order = FrameOrder(latency, saved.next_sequence, seen, newest_ms=saved.newest_ms, repeats=saved.repeats)
        self._ledger = Ledger(saved.next_sequence)
        self._channels = Channels(saved, config, ports, self._ledger.mark)
        self._windows = Windows(latency, config)
        self._outbox = Outbox(key, self._life, self._order, self._ledger, self._channels, saved.gaps)
        self._ingest = Ingest(latency, config, ports.model, self._life, self._order, self._ledger, self._channels)

    @property
    def options(self) -> RunOptions:
        """The run's options, as far as they are known."""
        return self._channels.options

    @property
    def tracks(self) -> list[Track]:
        """The audio of each channel that has a transcript of its own."""
        return self._channels.tracks

    @property
    def next_sample(self) -> int:
        """The run's number of source samples, including gaps and left-out silence."""
        return self._channels.next_sample

    @property
    def closed(self) -> bool:
        """Whether every output of the run has been returned."""
        return self._life.closed

    @property
    def ended(self) -> bool:
        """Whether no more audio comes. Only the last finals are left."""
        return self._life.closing is not None

    @property
    def next_sequence(self) -> int:
        """The sequence that is awaited."""
        return self._order.next

    @property
    def newest_ms(self) -> int:
        """The time at which the broker received the newest taken record, in ms since 1970. -1 before the first."""
        return self._order.newest_ms

    @property
    def repeats(self) -> int:
        """The number of records that came again after they were taken."""
        return self._order.repeats

    @property
    def last_offset(self) -> int:
        """The offset of the last record that was fed, also to an earlier owner. -1 before the first."""
        return self._life.last_offset

    @property
    def undecided(self) -> set[int]:
        """The offsets of records that wait for an earlier one: they may still be refused."""
        return {record.offset for record in self._order.waiting}

    # -- records in ------------------------------------------------------------------------------------------------

    def feed(self, record: AudioRecord) -> list[Output]:
        """Take a record of the run. A faulty record is returned as a dead letter; the run goes on."""
        # A replay closes idle segments again at the same places, although newer records are known.
        self._pass_time(record.timestamp_ms, self._life.fed_ms)
        self._outbox.advance()
        self._outbox.add(self._ingest.feed(record))
        return self._advance()

    def tick(self, now_ms: int) -> list[Output]:
        """Let time pass: finalise and close an idle run, and stop waiting for missing records of an ended run.

        ``now_ms`` is on the clock of the records' ``timestamp_ms``: that of the last record, or later if the log has no more.
        """
        self._pass_time(now_ms, self._life.last_ms)
        return self._advance()

    def close(self, reason: Reason, now_ms: int) -> None:
        """End the run now; its last finals and ``completed`` come through ``apply`` or ``tick``."""
        self._pass_time(now_ms, self._life.fed_ms)  # earlier ticks may or may not have done this
        self._outbox.add(self._ingest.close(reason, now_ms))

    def give_up(self, reason: Reason) -> list[Output]:
        """Close the run at once, because it fails. Published finals stay, and a gap covers the rest."""
        self._outbox.give_up(reason)
        return self._outbox.take()

    def note_loss(self) -> None:
        """Note that the log lost records since the snapshot from which this session was restored."""
        self._order.note_loss()

    def _pass_time(self, now_ms: int, since_ms: int) -> None:
        self._outbox.add(self._ingest.pass_time(now_ms, since_ms))

    def _advance(self) -> list[Output]:
        self._outbox.advance()
        return self._outbox.take()

    # -- windows out, results in -----------------------------------------------------------------------------------

    def wants(self, now_ms: int) -> list[Wanted]:
        """The windows that could be decoded now and are not in flight: finals in order, and each channel's newest partial."""
        return self._windows.wants(self._channels.tracks, now_ms)

    def begin(self, window_id: int) -> Window:
        """Copy a wanted window's audio and mark it in flight. Raises ``ValueError`` if it is not wanted."""
        return self._windows.begin(window_id, self._channels.tracks, self._channels.publications, self.options)

    def abandon(self, window_id: int) -> None:
        """Requeue a window: its batch was not decoded."""
        self._windows.abandon(window_id)

    def fail(self, window_id: int, *, hung: bool) -> list[Output] | None:
        """Note that the model failed or hung on a window's batch. None if it is requeued, alone; else the outputs of abandoning it."""
        return None if self._windows.fail(window_id, hung=hung) else self._advance()

    def apply(self, window_id: int, decoded: Decoded, now_ms: int) -> list[Output]:  # noqa: ARG002  # the pool's port
        """Take a result. One that is too late for its segment changes nothing."""
        found = self._windows.end(window_id)
        if found is None or self.closed:
            return []
        self._outbox.add(self._channels.apply(*found, decoded, self.epoch))
        return self._advance()

    # -- commits ---------------------------------------------------------------------------------------------------

    def settled_offset(self) -> int | None:
        """The offset of the oldest record that no final, gap or dead letter covers. None if there is none."""
        if self.closed:
            return None
        waiting = (record.offset for record in self._order.waiting)
        offsets = (self._ledger.oldest, self._life.ended_offset, *waiting)
        return min((offset for offset in offsets if offset is not None), default=None)

    def drafted(self) -> None:
        """Note that a transaction begins with all outputs so far."""
        self._channels.drafted()

    def committed(self) -> None:
        """Note that the last drafted transaction is committed."""
        self._channels.committed()

    def backlog_seconds(self) -> float:
        """Audio that waits for its final: from the first speech that no final covers."""
        return self._channels.backlog_seconds

    def undecoded(self) -> bool:
        """Whether a closed segment waits for its decode, or is being decoded."""
        return self._channels.undecoded

    # -- snapshots -------------------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """The state that ``restore`` needs, consistent with ``settled_offset`` and with every durable output so far."""
        life, order, channels = self._life, self._order, self._channels
        done = channels.done
        seen = order.seen_before(done.sequence) if done and not self.closed else {}
        tracks = () if self.closed else tuple(map(save_track, channels.tracks, channels.publications))
        saved = RunState(
            tenant=self.key.tenant, stream=self.key.stream, run=self.key.run, latency=self.latency, options=self.options,
            model=self.ports.model.digest, rate=channels.rate, channels=channels.count, started=life.started,
            framed=life.framed, closed=life.closing if self.closed else None, last_ms=life.last_ms,
            first_received_ms=life.first_received_ms, last_offset=life.last_offset, gaps=self._outbox.gaps,
            repeats=order.repeats, newest_ms=order.newest_ms,
            next_sequence=done.sequence if done else order.first, next_sample=done.sample if done else 0,
            seen={n: d.hex() for n, d in seen.items()}, tracks=tracks,
        )  # fmt: skip
        return saved.model_dump_json().encode()

    @classmethod
    def restore(cls, snapshot: bytes, config: SessionConfig, ports: Ports) -> "Session":
        """Restore a session as of its last commit. It is over if other weights are loaded now. Raises ``IncompatibleError``."""
        saved = RunState.read(snapshot)
        self = cls(saved.key, saved.latency, config, ports, saved)
        if not self.closed and saved.model not in ("", ports.model.digest):
            self._end_of_model(saved.last_ms)
        return self

    def _end_of_model(self, now_ms: int) -> None:
        """Close the run: even its language may change with other weights. Its finals so far name their weights (adr/0029)."""
        self._channels.reach_cuts()
        self._outbox.add(self._ingest.close(Reason.MODEL_CHANGED, now_ms))
