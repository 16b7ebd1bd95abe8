"""Fakes a session without speech, for tests of lanes: one segment per second of audio, with the backend's text."""

import json
from dataclasses import dataclass

import numpy as np

from kaption.domain.decoding.port import Decoded, DecodeOptions, Kind, Window, window_length
from kaption.domain.records import AudioRecord, Latency, Output, Refused, RunKey
from kaption.domain.run.windows import MOST_FAILURES
from kaption_schemas.errors import IncompatibleError
from kaption_schemas.reasons import Reason
from kaption_schemas.records import FinalTranscript, Gap, Model, PartialTranscript, RunOptions, StreamCompleted
from kaption_schemas.topics import Type

RATE = 16_000
#: The session refuses a chunk that begins with this sample value.
REFUSED = 666


@dataclass(frozen=True)
class CountingWanted:
    """Implements ``kaption.domain.pool.ports.Wanted``."""

    window_id: int
    kind: Kind
    seconds: float
    overdue_s: float
    alone: bool


class CountingSession:
    """Implements ``kaption.domain.pool.ports.LaneSession``."""

    def __init__(self, key: RunKey, latency: Latency) -> None:
        self.key = key
        self.latency = latency
        self.options = RunOptions()
        self.epoch = 0
        self.closed = False
        self.lost = False
        self.segment = 0
        self.revision = 0
        self.next_sequence = 0
        self.newest_ms = -1
        self.last_offset = -1
        self.chunks: list[tuple[int, int, bytes]] = []  # offset, sequence, PCM
        self.closing: tuple[Reason, int] | None = None
        self.flying: dict[int, int] = {}  # window -> chunks in it
        self.failures: dict[int, int] = {}
        self.muted = False

    @property
    def ended(self) -> bool:
        return self.closing is not None

    @property
    def undecided(self) -> tuple[int, ...]:
        return ()

    def feed(self, record: AudioRecord) -> list[Output]:
        if self.closing:
            return [] if record.kind is Type.ENDED else [Refused(record.offset, Reason.RUN_CLOSED)]
        if record.kind is Type.ENDED:
            self.closing = (Reason.ENDED, record.offset)
            return self._finish()
        if record.kind is Type.STARTED or record.sequence < self.next_sequence:
            return []
        missed, self.next_sequence = record.sequence - self.next_sequence, record.sequence + 1
        if record.kind is Type.GAP:
            return [self._gap(record.sequence, record.sequence, record.reason or Reason.LOST)]
        if np.frombuffer(record.body, "<i2")[0] == REFUSED:
            return [Refused(record.offset, Reason.LATE)]
        self.chunks.append((record.offset, record.sequence, record.body))
        return [self._gap(record.sequence - missed, record.sequence - 1)] if missed and self.lost else []

    def _gap(self, first: int, last: int, reason: Reason = Reason.RETENTION) -> Gap:
        return Gap(
            tenant=self.key.tenant, stream=self.key.stream, run=self.key.run, reason=reason,
            first_sequence=first, last_sequence=last, first_sample=0, samples=0,
        )  # fmt: skip

    def tick(self, now_ms: int) -> list[Output]:
        return self._finish()

    def note_loss(self) -> None:
        self.lost = True

    def close(self, reason: Reason, now_ms: int) -> None:
        self.closing = self.closing or (reason, -1)

    def give_up(self, reason: Reason) -> list[Output]:
        self.closing, self.chunks = (reason, -1), []
        return self._finish()

    def _segment_chunks(self) -> int:
        total = 0
        for count, (_, _, body) in enumerate(self.chunks, 1):
            total += len(body) // 2
            if total >= RATE:
                return count
        return len(self.chunks) if self.closing and self.chunks else 0

    def wants(self, now_ms: int) -> list[CountingWanted]:
        out, alone = [], bool(self.failures)
        if 1 not in self.flying and self._segment_chunks():
            out.append(CountingWanted(1, Kind.FINAL, 1.0, 0.0, alone))
        if 2 not in self.flying and self.chunks and self.latency is Latency.LIVE and not self.muted:
            out.append(CountingWanted(2, Kind.PARTIAL, 1.0, 0.0, alone))
        return out

    def begin(self, window_id: int) -> Window:
        count = self._segment_chunks() if window_id == 1 else len(self.chunks)
        self.flying[window_id] = count
        pcm = np.frombuffer(b"".join(body for _, _, body in self.chunks[:count]), "<i2").astype(np.float32)
        kind = Kind.FINAL if window_id == 1 else Kind.PARTIAL
        return Window(window_id, kind, pcm, window_length(RATE), DecodeOptions())

    def abandon(self, window_id: int) -> None:
        self.flying.pop(window_id, None)

    def fail(self, window_id: int, *, hung: bool) -> list[Output] | None:
        count = self.flying.pop(window_id)
        self.failures[window_id] = self.failures.get(window_id, 0) + (2 if hung else 1)
        if self.failures[window_id] < MOST_FAILURES:
            return None
        if window_id == 1:
            self.flying[window_id] = count
            return self.apply(window_id, Decoded("", None, 0.0, 0.0, 0.0), 0)
        self.muted = True
        return []

    def apply(self, window_id: int, decoded: Decoded, now_ms: int) -> list[Output]:
        count = self.flying.pop(window_id)
        self.failures.pop(window_id, None)
        if window_id == 2:
            self.revision += 1
            return [
                PartialTranscript(
                    tenant=self.key.tenant, stream=self.key.stream, run=self.key.run, channel=0, segment=self.segment,
                    epoch=self.epoch, revision=self.revision, start_ms=0, end_ms=0, text=decoded.text, stable=0,
                )
            ]  # fmt: skip
        taken, self.chunks = self.chunks[:count], self.chunks[count:]
        start = taken[0][1] * 100
        final = FinalTranscript(
            tenant=self.key.tenant, stream=self.key.stream, run=self.key.run, channel=0, segment=self.segment,
            start_sample=start, end_sample=start, speech_start_sample=start, speech_end_sample=start, rate=RATE,
            start_ms=0, end_ms=0, text=decoded.text, words=(), language=None, silent=False, quality=None,
            redactions=(), model=Model(name="counting", digest="0", backend="test"),
        )  # fmt: skip
        self.segment += 1
        self.muted = False
        return [final, *self._finish()]

    def _finish(self) -> list[Output]:
        if self.closed or not self.closing or self.chunks:
            return []
        self.closed = True
        return [
            StreamCompleted(
                tenant=self.key.tenant, stream=self.key.stream, run=self.key.run, channel=0, segments=self.segment,
                samples=0, rate=RATE, duration_ms=0, reason=self.closing[0], gaps=0, repeats=0,
            )
        ]  # fmt: skip

    def settled_offset(self) -> int | None:
        if self.closed:
            return None
        if self.chunks:
            return self.chunks[0][0]
        return self.closing[1] if self.closing and self.closing[1] >= 0 else None

    def snapshot(self) -> bytes:
        next_sequence = self.chunks[0][1] if self.chunks else self.next_sequence
        return json.dumps([*self.key, self.latency, self.segment, self.revision, next_sequence]).encode()

    def drafted(self) -> None:
        """Do nothing: this session decodes nothing ahead."""

    def committed(self) -> None:
        """Do nothing: this session decodes nothing ahead."""

    def backlog_seconds(self) -> float:
        return sum(len(body) for _, _, body in self.chunks) / 2 / RATE

    def undecoded(self) -> bool:
        return bool(self._segment_chunks())


class CountingSessions:
    """Makes ``CountingSession``s."""

    def new(self, key: RunKey, latency: Latency) -> CountingSession:
        return CountingSession(key, latency)

    def restore(self, snapshot: bytes) -> CountingSession:
        try:
            tenant, stream, run, latency, segment, revision, next_sequence = json.loads(snapshot)
        except ValueError as error:
            raise IncompatibleError from error
        session = CountingSession(RunKey(tenant, stream, run), Latency(latency))
        session.segment, session.revision, session.next_sequence = segment, revision, next_sequence
        return session
