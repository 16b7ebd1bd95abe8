"""A partition's log with everything in it that publishers, networks and agents do wrong, and a lane that lives and dies over it."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, repeat

from aiokafka.structs import ConsumerRecord

from kaption.domain.decoding.port import Decoded, Window
from kaption.domain.records import Latency, RunKey
from kaption.domain.run.config import SessionConfig
from kaption.domain.run.segmenter import SegmentRules
from kaption.testing.voices import spell
from kaption_gpu.bootstrap import RealSessions
from kaption_gpu.lanes.records import parse
from kaption_schemas.headers import event_headers, pcm_type, sequence
from kaption_schemas.reasons import Reason
from kaption_schemas.records import AudioFormat, Gap, RunOptions, StreamEnded, StreamRefused, StreamStarted
from kaption_schemas.topics import LIVE, Type
from tests.support.lane_log import Committed
from tests.support.runs import PORTS, START_MS, babble

#: Segments of the tests are short, so that a log of seconds holds many cuts, at pauses and in the middle of speech.
CONFIG = SessionConfig(rules=SegmentRules(longest=60, quiet_search=20, silence=25))
#: Frames in ms; 160 ms are 2,560 samples at 16 kHz, where blocks, detector frames and frames end together.
SIZES = (160, 160, 100, 100, 60, 20, 320, 500, 1000)


@dataclass(frozen=True)
class Planned:
    """A record to be: when the audio topic has it, when the publisher's topic had it, and what it is."""

    at_ms: int
    received_ms: int
    stream: str
    run: str
    kind: Type
    body: bytes
    content: str = "application/json"
    number: int = -1
    first: int = 0


@dataclass
class Storm:
    """One log: ``faults`` is how likely each thing is to go wrong."""

    seed: int
    faults: float = 0.06
    planned: list[Planned] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)

    def log(self) -> list[ConsumerRecord]:
        """The records in the order of the log."""
        for stream in ("a", "b")[: self.dice.choice((1, 1, 2))]:
            at = START_MS + self.dice.randrange(3000)
            for _ in range(self.dice.choice((1, 1, 2))):
                at = self._run(stream, f"01J{len(self.planned):08d}{self.dice.randrange(10**15):015d}", at)
                at += self.dice.choice((-1500, 500, 12_000))
        self.planned.sort(key=lambda one: one.at_ms)
        return [_record(offset, one) for offset, one in enumerate(self.planned)]

    def _wrong(self, times: float = 1.0) -> bool:
        return self.dice.random() < self.faults * times

    def _run(self, stream: str, run: str, at: int) -> int:
        """One run from ``at`` on; when it is over."""
        dice = self.dice
        rate, channels = dice.choice((16000, 16000, 16000, 8000, 44100)), dice.choice((1, 1, 2))
        options = RunOptions(channels=dice.choice(("mix", "split")), redaction=dice.choice(((), (), ("NUMBER",))))
        begun = dice.random() < 0.7
        if begun:
            body = StreamStarted(format=AudioFormat(rate=rate, channels=channels), options=options)
            self._start(stream, run, at, body.model_dump_json().encode())
        elif self._wrong(2):
            refused = StreamRefused(reason=Reason.CLOCK_SKEW).model_dump_json().encode()
            self._add(Planned(at + dice.choice((0, 700)), at, stream, run, Type.REFUSED, refused))
        frames = list(self._frames(stream, run, at, rate, channels))
        for number, frame in enumerate(frames):
            self._send(frame, frames[number - 1] if number else None)
        over = frames[-1].at_ms + dice.choice((0, 0, 40, 3000, 20_000))
        if dice.random() < 0.85:
            last = frames[-1].number - (dice.randrange(5) if self._wrong(2) else 0)
            end = StreamEnded(last_sequence=max(last, -1)).model_dump_json().encode()
            for again in range(1 + self._wrong(2)):
                self._add(Planned(over + 900 * again, over, stream, run, Type.ENDED, end))
        if self._wrong(3):  # a whole stretch again, as an agent that was killed delivers it
            for frame in frames[dice.randrange(len(frames)) :]:
                self._add(replace(frame, at_ms=over + 1 + frame.at_ms - frames[0].at_ms))
        return over

    def _start(self, stream: str, run: str, at: int, body: bytes) -> None:
        self._add(Planned(at, at, stream, run, Type.STARTED, body))
        if self._wrong(2):
            late = at + self.dice.choice((1, 900))
            other = StreamStarted(options=RunOptions(language="en")).model_dump_json().encode()
            self._add(
                Planned(late, self.dice.choice((at, late)), stream, run, Type.STARTED, self.dice.choice((body, other)))
            )

    def _frames(self, stream: str, run: str, at: int, rate: int, channels: int) -> Iterator[Planned]:
        """The run's frames as they should come: with silence left out, and pauses in which nothing comes."""
        dice = self.dice
        shape = [
            (dice.choice((0.3, 0.64, 0.9, 1.3)), loud) for _ in range(dice.randint(2, 5)) for loud in (False, True)
        ]
        shape = [(2 * length if loud and dice.random() < 0.4 else length, loud) for length, loud in shape]
        pcm = babble(shape, rate, channels, seed=self.seed)
        fixed = dice.choice(SIZES) * rate // 1000
        sizes = repeat(fixed) if dice.random() < 0.7 else (dice.choice(SIZES) * rate // 1000 for _ in repeat(0))
        first, cursor = (dice.choice((0, 0, 0, 7 * rate)), 0)
        now = at + first * 1000 // rate
        for number in chain(range(dice.choice((0, 0, 1)), 10_000)):
            size = next(sizes)
            piece = pcm[cursor : cursor + size]
            if not len(piece):
                return
            now += len(piece) * 1000 // rate
            content = pcm_type(rate, channels)
            yield Planned(
                now + dice.randrange(30), now, stream, run, Type.CHUNK, piece.tobytes(), content, number, first
            )
            cursor, first = cursor + size, first + len(piece)
            if self._wrong(0.4):  # silence is left out
                away = dice.choice((1, 5, 12, 80))
                first, now = first + away * rate, now + away * 1000
            if self._wrong(0.4):  # nothing comes for a while, and then it goes on where it was
                now += dice.choice((1500, 5000, 9000, 15_000, 905_000))

    def _send(self, frame: Planned, before: Planned | None) -> None:
        """Put a frame into the log, or what becomes of it."""
        dice = self.dice
        if self._wrong(0.8):
            return  # lost
        if self._wrong(0.8):  # late, or swapped with those behind it
            late = dice.choice((150, 400, 1500, 2600, 9500))
            frame = replace(frame, at_ms=frame.at_ms + late, received_ms=frame.received_ms + late)
        if self._wrong(0.5):
            frame = self._spoilt(frame)
        if self._wrong(0.5):
            self._add(_gap(frame))
            if dice.random() < 0.5:  # and its publisher corrects it
                self._add(replace(frame, at_ms=frame.at_ms + 40, received_ms=frame.received_ms + 40))
            return
        self._add(frame)
        if self._wrong(0.8):  # again, by an agent or by its publisher
            later = dice.choice((1, 300, 4000, 25_000))
            self._add(
                replace(frame, at_ms=frame.at_ms + later, received_ms=frame.received_ms + dice.choice((0, later)))
            )
        if before is not None and self._wrong(0.4):  # other bytes under a sequence that was used
            used = replace(frame, number=before.number, first=before.first)
            self._add(replace(used, at_ms=frame.at_ms + 1, received_ms=frame.at_ms + 1))

    def _spoilt(self, frame: Planned) -> Planned:
        rate = int(frame.content.split("rate=")[1].split(";")[0])
        return self.dice.choice(
            (
                replace(frame, content=pcm_type(8000 if rate != 8000 else 16000, 1)),
                replace(frame, first=max(0, frame.first - rate)),
                replace(frame, first=frame.first + 60 * rate),
                replace(frame, first=frame.first + 7200 * rate),
                replace(frame, number=frame.number + 50_000),
                replace(frame, number=frame.number + 70),
            )
        )

    def _add(self, one: Planned) -> None:
        self.planned.append(one)


def _gap(frame: Planned) -> Planned:
    body = Gap(
        run=frame.run, first_sequence=frame.number, last_sequence=frame.number, first_sample=frame.first, samples=0,
        reason=Reason.FRAME_TOO_LONG,
    )  # fmt: skip
    return replace(frame, kind=Type.GAP, body=body.model_dump_json().encode(), content="application/json")


def _record(offset: int, one: Planned) -> ConsumerRecord:
    extra = {"received": str(one.received_ms)}
    if one.number >= 0:
        extra |= {"sequence": sequence(one.number), "firstsample": str(one.first)}
    headers = event_headers(one.kind, id="x", source="x", run=one.run, content_type=one.content, extra=extra)
    key = f"default/{one.stream}".encode()
    return ConsumerRecord(LIVE.name, 0, offset, one.at_ms, 1, key, one.body, None, 0, 0, tuple(headers))


class Life:
    """A lane over a log, by a clock of its own. ``crashes``: how likely a step ends the worker; 0 for one that nothing disturbs."""

    def __init__(self, log: list[ConsumerRecord], seed: int, crashes: float = 0.0) -> None:
        self.log = log
        self.deaths = 0
        self._dice = random.Random(seed)
        self._crashes = crashes
        self._broker = Committed(sessions=RealSessions(CONFIG, PORTS), written_ms=START_MS)
        self._memory = self._broker.open(0)
        self._flying: list[tuple[RunKey, Window, Decoded]] = []
        self._now = START_MS

    def play(self) -> list[str]:
        """What is committed in the end, sorted."""
        end = self.log[-1].timestamp + 20_000
        while self._now < end:
            self._step()
        self._crashes = 0.0
        for _ in range(40):  # the runs close; each waits until the one before it on its stream is committed
            self._now += 60_000
            self._read(len(self.log))
            self._decode(1.0)
            self._broker.commit(self._memory, self._now)
        assert self._memory.open_runs == 0
        return sorted(self._broker.outputs)

    def _step(self) -> None:
        dice = self._dice
        calm = not self._crashes
        here = self._memory.position
        coming = self.log[here].timestamp if here < len(self.log) else self._now + 1000
        wait = min(max(coming - self._now, 0), 1000)
        self._now += wait if calm else dice.choice((0, wait, wait, 1500))
        if dice.random() < self._crashes:
            self.deaths += 1
            self._flying.clear()
            self._memory = self._broker.open(self.deaths)
        self._read(len(self.log) if calm else dice.choice((1, 3, 20, 1000)))
        self._decode(1.0 if calm else dice.choice((0.0, 0.3, 1.0)))
        if calm or dice.random() < 0.4:
            self._broker.commit(self._memory, self._now)

    def _read(self, most: int) -> None:
        """Read what is there by now; the clock is the wall's at the log's end only."""
        memory = self._memory
        for record in self.log[memory.position :]:
            if record.timestamp > self._now or not most:
                break
            memory.take(record, parse(record, Latency.LIVE))
            most -= 1
        here = memory.position
        at_end = here >= len(self.log) or self.log[here].timestamp > self._now
        memory.tick(self._now if at_end else memory.record_ms)

    def _decode(self, share: float) -> None:
        """Begin what is wanted and let some of it come back; all of it, again and again, where the share is 1."""
        memory, dice = self._memory, self._dice
        for _ in range(200 if share == 1.0 else 1):
            wanted = [(key, want) for key, want in memory.wants(self._now) if dice.random() <= share]
            for key, want in wanted:
                window = memory.begin(key, want.window_id)
                self._flying.append((key, window, spell(window)))
            landed = [one for one in self._flying if dice.random() <= share]
            self._flying = [one for one in self._flying if one not in landed]
            for key, window, decoded in landed:
                memory.apply(key, window.id, decoded, self._now)
            if not wanted:
                return
