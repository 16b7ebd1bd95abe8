"""A lane takes its time from the broker: neither a stop of its process nor its machine's clock cuts or closes a run (promise 4)."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.structs import ConsumerRecord

from kaption.adapters.kafka.fetching import LogEnd
from kaption.adapters.settings import Settings
from kaption.domain.decoding.port import Kind
from kaption.domain.records import Latency
from kaption.domain.run.config import SessionConfig
from kaption.testing.objects import MemoryObjects
from kaption.testing.voices import spell
from kaption_gpu.bootstrap import RealSessions
from kaption_gpu.lanes.chunk_reading import ChunkReader
from kaption_gpu.lanes.clock import BrokerClock
from kaption_gpu.lanes.data import SavedLane, Source
from kaption_gpu.lanes.lane import Lane, LaneParts, State
from kaption_gpu.lanes.memory import LaneMemory
from kaption_schemas.headers import event_headers, pcm_type, sequence, text_headers
from kaption_schemas.topics import LIVE, Type
from tests.support.runs import PORTS, START_MS, babble

RATE = 16_000
SOURCE = Source(Latency.LIVE, 0)
CONFIG = SessionConfig(idle_final=30, idle_close=900)
SPEECH = babble([(0.5, False)] + [(2.0, True), (1.0, False), (7.3, True), (1.0, False)] * 2, RATE)


class Consumer:
    """One assigned partition."""

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition(SOURCE.topic, SOURCE.partition)}

    def pause(self, _: TopicPartition) -> None:
        """Nothing."""

    resume = pause


@dataclass
class World:
    """A lane, the seconds that it counts, and the log end that it has received."""

    seconds: float = 1000.0
    ahead_s: float = 0.0
    end: LogEnd | None = None
    told: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        objects, consumer = MemoryObjects(), Consumer()
        sessions = RealSessions(CONFIG, PORTS)
        self.lane = Lane(SOURCE, LaneParts(
            Settings(), consumer, sessions, objects, ChunkReader(objects), lambda _tp: self.end, lambda: None,
            lambda *_: None, lambda *_: None, clock=lambda: BrokerClock(lambda: self.seconds, self.wall),
        ))  # fmt: skip
        self.lane.memory = LaneMemory(SOURCE, sessions, SavedLane(), position=0, epoch=0, silence_ms=0)
        self.lane.state, self.lane.paused = State.READY, False

    def wall(self) -> float:
        """This machine's clock."""
        return START_MS / 1000 + self.seconds - 1000 + self.ahead_s

    def read(self, records: Sequence[ConsumerRecord], asked: float | None = None) -> None:
        """A fetch that was asked for now, or before, brings ``records`` and the log's end."""
        self.lane.offer(list(records))
        self.lane.pump()
        if records:
            self.end = LogEnd(records[-1].offset + 1, self.seconds if asked is None else asked)
        elif self.end:
            self.end = LogEnd(self.end.offset, self.seconds if asked is None else asked)

    def settle(self) -> None:
        """Decode and commit."""
        memory = self.lane.memory
        assert memory is not None
        now = self.lane.now_ms()
        while finals := [(k, w) for k, w in memory.wants(now) if w.kind is Kind.FINAL]:
            for key, wanted in finals:
                memory.apply(key, wanted.window_id, spell(memory.begin(key, wanted.window_id)), now)
        for message in (memory.draft(now) or SavedDraft()).messages:
            head = text_headers(message.headers)
            if "errors.reason" in head:
                self.told.append(head["errors.reason"])
            elif head["ce_type"] == Type.FINAL:
                body = json.loads(message.value or b"")
                self.told.append((body["segment"], body["start_ms"], body["end_ms"]))
            elif head["ce_type"] == Type.COMPLETED:
                self.told.append("completed " + json.loads(message.value or b"")["reason"])
        memory.committed()


class SavedDraft:
    """None was due."""

    messages = ()


def log() -> list[ConsumerRecord]:
    """Speech in real time by the broker's clock, which stands at ``START_MS`` when the lane counts 1000."""
    out = []
    for number in range(len(SPEECH) // 1600):
        stamp = START_MS + (number + 1) * 100
        extra = {"received": str(stamp), "sequence": sequence(number), "firstsample": str(number * 1600)}
        headers = event_headers(
            Type.CHUNK,
            id="x",
            source="x",
            run="01HZZZZZZZZZZZZZZZZZZZZZZZ",
            content_type=pcm_type(RATE, 1),
            extra=extra,
        )
        body = SPEECH[number * 1600 : (number + 1) * 1600].tobytes()
        out.append(ConsumerRecord(LIVE.name, 0, number, stamp, 1, b"default/call", body, None, 0, 0, tuple(headers)))
    return out


def play(stop_s: float = 0.0, ahead_s: float = 0.0) -> list[Any]:
    """Read the log as it grows; after 8 s the process stops for ``stop_s`` seconds. Return the reports, without the end.

    The machine's clock is ``ahead_s`` ahead of the broker's.
    """
    world, records, at = World(ahead_s=ahead_s), log(), 0
    while at < len(records):
        world.seconds += 0.1
        if at == 80 and stop_s:
            world.read([])  # an empty answer is the last thing that it receives
            world.seconds += stop_s
            world.lane.tick()
            world.settle()
            # The answer to a question from before the stop, which waited in the socket.
            world.read([], asked=world.seconds - stop_s)
            world.lane.tick()
            world.settle()
        due = [r for r in records[at:] if r.timestamp <= START_MS + round((world.seconds - 1000) * 1000)]
        at += len(due)
        world.read(due)
        if at % 10 == 0:
            world.lane.tick()
        world.settle()
    return world.told


@pytest.mark.parametrize("stop_s", [31, 960])
def test_a_process_that_was_stopped_neither_cuts_nor_closes_what_is_in_the_log(stop_s: float) -> None:
    calm = play()
    assert len(calm) >= 3
    assert play(stop_s) == calm


@pytest.mark.parametrize("ahead_s", [31, 900, -900])
def test_a_machine_with_another_time_neither_cuts_nor_closes(ahead_s: float) -> None:
    assert play(ahead_s=ahead_s) == play()


def test_at_the_end_of_the_log_time_goes_on_with_each_question() -> None:
    world = World()
    world.read(log()[:20])
    world.seconds += 31
    world.lane.tick()
    world.settle()
    assert world.told == [], "nobody has asked since"
    world.read([])
    world.lane.tick()
    world.settle()
    assert [told for told in world.told if isinstance(told, tuple)] == [(0, 0, 1984)]
    world.seconds += 900
    world.read([])
    world.lane.tick()
    world.settle()
    assert Counter(map(str, world.told))["completed idle"] == 1


def test_the_clock_is_the_brokers_whatever_the_machine_says() -> None:
    seconds = [50.0]
    clock = BrokerClock(lambda: seconds[0])
    clock.seen(1_000_000)
    seconds[0] += 15
    assert clock.now() == 1_015_000
    clock.seen(1_002_000)  # an old record: it was that time then, or it is later
    assert clock.now() == 1_015_000
    clock.seen(1_016_000)
    assert (clock.now(), clock.at(50.0)) == (1_016_000, 1_001_000)
