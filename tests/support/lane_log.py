"""What a lane's memory reads and writes, without a broker: records of audio.live.v1, and what would be committed."""

from dataclasses import dataclass, field

import numpy as np
from aiokafka.structs import ConsumerRecord

from kaption.domain.pool.ports import Sessions
from kaption.domain.records import Latency, RunKey
from kaption.testing.backends import CountingBackend
from kaption.testing.sessions import CountingSessions
from kaption_gpu.lanes.data import Draft, Saved, SavedLane, Source
from kaption_gpu.lanes.letters import Told
from kaption_gpu.lanes.memory import LaneMemory
from kaption_gpu.lanes.records import parse
from kaption_schemas.codec import Headers, read_state
from kaption_schemas.errors import RefusedError
from kaption_schemas.headers import event_headers, pcm_type, sequence, text_headers
from kaption_schemas.reasons import Reason
from kaption_schemas.records import StreamEnded, StreamStarted
from kaption_schemas.topics import LIVE, Type

BACKEND = CountingBackend()


def record(
    offset: int,
    stream: str,
    run: int,
    kind: Type,
    number: int,
    value: int,
    samples: int = 4000,
    tenant: str = "default",
) -> ConsumerRecord:
    """A record of a run; samples of a frame all have ``value``."""
    extra = {"received": "1"}
    if kind is Type.CHUNK:
        body = np.full(samples, value, "<i2").tobytes()
        extra |= {"sequence": sequence(number), "firstsample": str(number * samples)}
    elif kind is Type.STARTED:
        body = StreamStarted().model_dump_json().encode()
    else:
        body = StreamEnded(last_sequence=max(number, -1)).model_dump_json().encode()
    content = pcm_type(16000, 1) if kind is Type.CHUNK else "application/json"
    name = f"01J{run:023d}"
    headers = event_headers(kind, id="x", source="x", run=name, content_type=content, extra=extra)
    return ConsumerRecord(
        LIVE.name, 0, offset, 1000 + offset, 1, f"{tenant}/{stream}".encode(), body, None, 0, 0, tuple(headers)
    )


@dataclass
class Committed:
    """What a broker would hold: outputs in order, the state topic by key, the offset."""

    outputs: list[str] = field(default_factory=list)
    state: dict[bytes, tuple[bytes, Headers]] = field(default_factory=dict)
    offset: int = 0
    written_ms: int = 0
    sessions: Sessions = field(default_factory=CountingSessions)

    def open(
        self,
        epoch: int,
        *,
        admits: bool = True,
        claimed_ms: int = 0,
        latency: Latency = Latency.LIVE,
        cut_off: bool = False,
        position: int | None = None,
    ) -> LaneMemory:
        """The lane as the next owner takes it over."""
        snapshots, told = [], Told()
        for key, (value, headers) in self.state.items():
            whose = read_state(ConsumerRecord("", 0, 0, 0, 0, key, value, None, 0, 0, headers))
            if isinstance(whose, str):
                told = Told.read(value)
            elif whose is not None:
                (tenant, stream, run), marks = whose
                snapshots.append(Saved(RunKey(tenant, stream, run), marks, value, self.written_ms))
        saved = SavedLane(tuple(snapshots), told, claimed_ms, cut_off)
        return LaneMemory(
            Source(latency, 0),
            self.sessions,
            saved,
            position=self.offset if position is None else position,
            epoch=epoch,
            silence_ms=0,
            refusal=lambda _tenant, _here, *, new: None if admits or not new else Reason.OVERLOADED,
        )

    def commit(self, memory: LaneMemory, now: int) -> None:
        """Write what is due, if anything is."""
        if draft := memory.draft(now):
            self.write(draft)

    def write(self, draft: Draft) -> None:
        """Take a transaction."""
        assert draft.offset >= self.offset
        for message in draft.messages:
            head = text_headers(message.headers)
            if message.topic.startswith("transcripts.state"):
                assert message.key is not None
                assert message.value is not None
                self.state[message.key] = (message.value, message.headers)
            elif "errors.offset" in head:
                self.outputs.append(f"{head['errors.reason']}@{head['errors.offset']}")
            else:
                self.outputs.append(f"{head['ce_id']} {message.value!r}")
        self.offset = draft.offset


def take(memory: LaneMemory, item: ConsumerRecord) -> None:
    """Hand a record over as a lane does."""
    try:
        memory.take(item, parse(item, Latency.LIVE))
    except RefusedError as error:
        memory.take(item, error.reason)


def decode(memory: LaneMemory, limit: int = 100) -> None:
    """Decode what is wanted until nothing is, or ``limit`` windows."""
    for _ in range(limit):
        wanted = next(memory.wants(0), None)
        if wanted is None or wanted[1].window_id != 1:
            finals = [(k, w) for k, w in memory.wants(0) if w.window_id == 1]
            if not finals:
                return
            wanted = finals[0]
        key, window = wanted
        memory.apply(key, window.window_id, BACKEND.transcribe([memory.begin(key, window.window_id)])[0], 0)
