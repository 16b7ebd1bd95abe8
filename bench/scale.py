"""Measures the pool's engine alone, from recorded chunks: the gain of a second core, and the cost of quiet rooms.

    .venv/bin/python -m bench.scale [--streams 16] [--seconds 20] [--rooms 64]

Real lanes' memories, sessions, detector, planner, executors and backend, as ``kaption_gpu.worker`` wires them; no Kafka and no agents.
Time is the records': it passes when no window waits, so that each way does the same work as fast as it can. With speech, the
engine collects windows for ``LOADED`` steps, since a busy pool decodes in batches.
Each way runs in its own pinned processes, with the same number of streams per core: fewer would make smaller batches.
For comparison, the same ways decode batches of recorded windows without an engine: what the machine gives. Rooms are noise
without speech.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TextIO, cast

import numpy as np
import numpy.typing as npt
from aiokafka.structs import ConsumerRecord

from bench import figures as kept
from bench.batches import fitting, timed, windows
from bench.processes import end_as_by_hand
from bench.speech import joined
from kaption.adapters.presidio import PresidioRedactor
from kaption.adapters.settings import Settings
from kaption.domain.decoding.port import SAMPLE_RATE, Costs, Kind
from kaption.domain.pool.plan import Batch, Planner
from kaption.domain.records import Latency
from kaption.domain.run.config import Ports
from kaption_gpu import batches
from kaption_gpu.bootstrap import RealSessions, session_config
from kaption_gpu.engine.backends import make_backend
from kaption_gpu.engine.executor import Execution, Executors, load
from kaption_gpu.engine.vad import SileroDetector
from kaption_gpu.lanes.data import SavedLane, Source
from kaption_gpu.lanes.memory import LaneMemory
from kaption_gpu.lanes.records import parse
from kaption_schemas.headers import event_headers, pcm_type, sequence
from kaption_schemas.records import AudioFormat, RunOptions, StreamStarted
from kaption_schemas.topics import Type

BEGIN_MS = 1_000_000
STEP_MS = 100
#: Parts of a step in which records arrive, since streams do not speak at the same moments; the pool reads 30 times a second.
PARTS = 3
LOADED = 4
LANES = 8
#: Windows per batch and per stream without an engine: about as many as an engine decodes at once, and for a stream in all.
ALONE = 4
EACH = 16
#: Far more seconds than a batch takes, so that no executor is replaced here.
LIMIT_SECONDS = 600.0
Pcm = npt.NDArray[np.int16]


@dataclass(slots=True)
class Tally:
    """Decoded windows by kind, and their batches."""

    windows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(map(str, Kind), 0))
    batches: int = 0


class Engine:
    """Lanes without a broker, and the loop of the pool over them."""

    def __init__(self, settings: Settings, sessions: RealSessions, executors: Executors, costs: Costs) -> None:
        self.tally = Tally()
        self.executors = executors
        self._planner = Planner(settings.batch_size, costs)
        self._running: set[asyncio.Task[None]] = set()
        silence = round(settings.silence_commit_seconds * 1000)
        self.lanes = [
            LaneMemory(Source(Latency.LIVE, n), sessions, SavedLane(), position=0, epoch=0, silence_ms=silence)
            for n in range(LANES)
        ]

    async def step(self, records: Sequence[Sequence[ConsumerRecord]], now_ms: int, every: int) -> None:
        """Take the records of one step, in parts; in every ``every``-th step decode until no window waits and an executor is free."""
        for part in records:
            for record in part:
                self.lanes[record.partition].take(record, parse(record, Latency.LIVE))
            if now_ms // STEP_MS % every == 0:
                await self._decode(now_ms)
        if now_ms % 1000 == 0:
            for lane in self.lanes:
                lane.tick(now_ms)

    async def finish(self, now_ms: int) -> None:
        """Wait for the batches in flight."""
        while self._running:
            await asyncio.wait(self._running)
            await self._decode(now_ms)

    async def _decode(self, now_ms: int) -> None:
        while True:
            for lane in self.lanes:
                lane.draft(now_ms)
                lane.partials.clear()
                lane.shown.clear()
            waiting = batches.waiting((lane, now_ms) for lane in self.lanes)
            if not self.executors.free:
                await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            elif (batch := self._planner.next(waiting)) is not None:
                running = self.executors.submit(batches.begin(batch), LIMIT_SECONDS)
                task = asyncio.create_task(self._execute(batch, running, now_ms))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
            else:
                return

    async def _execute(self, batch: Batch, running: asyncio.Future[Execution], now_ms: int) -> None:
        execution = await running
        self._planner.spent(batch, execution.seconds)
        self.tally.windows[str(batch.kind)] += len(batch.windows)
        self.tally.batches += 1
        batches.apply(batch, execution.results, now_ms)


def recorded(pcms: Sequence[Pcm]) -> list[list[list[ConsumerRecord]]]:
    """Make the records that agents would write of these streams, PCM of shape (n,) at 16 kHz, by step and part of a step."""
    size = SAMPLE_RATE * STEP_MS // 1000
    offsets = [0] * LANES

    def record(number: int, kind: Type, at_ms: int, body: bytes, extra: dict[str, str], content: str) -> ConsumerRecord:
        lane, run = number % LANES, f"01K{number:023d}"
        headers = event_headers(
            kind, id=f"{run}/{at_ms}", source="/kaption/streams", run=run, content_type=content, extra=extra
        )
        offsets[lane] += 1
        key = f"default/room-{number}".encode()
        return ConsumerRecord(
            "audio.live.v1", lane, offsets[lane] - 1, at_ms, 1, key, body, None, len(key), len(body), tuple(headers)
        )

    started = StreamStarted(format=AudioFormat(rate=SAMPLE_RATE, channels=1), options=RunOptions(redaction=()))
    body, json_type = started.model_dump_json().encode(), "application/json"
    starts = [record(n, Type.STARTED, BEGIN_MS, body, {}, json_type) for n in range(len(pcms))]
    steps: list[list[list[ConsumerRecord]]] = [[starts]]
    for step in range(max(map(len, pcms)) // size):
        parts: list[list[ConsumerRecord]] = [[] for _ in range(PARTS)]
        for number, pcm in enumerate(pcms):
            body = pcm[step * size : (step + 1) * size].astype("<i2").tobytes()
            if body:
                place = {"sequence": sequence(step), "firstsample": str(step * size)}
                at_ms = BEGIN_MS + (step + 1) * STEP_MS
                parts[number % PARTS].append(record(number, Type.CHUNK, at_ms, body, place, pcm_type(SAMPLE_RATE, 1)))
        steps.append(parts)
    return steps


def noise(count: int, seconds: float, slope: float, dbfs: float) -> list[Pcm]:
    """Make noise with a power that falls by ``slope`` of the frequency (1: pink, 2: brown) from 20 Hz, at ``dbfs``."""
    out: list[Pcm] = []
    length = round(seconds * SAMPLE_RATE)
    frequencies = np.maximum(np.fft.rfftfreq(length, 1 / SAMPLE_RATE), 20.0)
    for seed in range(count):
        white = np.fft.rfft(np.random.default_rng(seed).standard_normal(length))
        samples = np.fft.irfft(white * frequencies ** (-slope / 2), length)
        samples *= 32768 * 10 ** (dbfs / 20) / np.sqrt(np.mean(samples**2))
        out.append(np.clip(np.round(samples), -32768, 32767).astype(np.int16))
    return out


def audio(what: str, streams: int, seconds: float) -> list[Pcm]:
    """Return speech, or one of the two rooms."""
    if what == "speech":
        return [stretch.pcm[:, 0] for stretch in joined(streams, seconds)]
    return noise(streams, seconds, *{"quiet": (2.0, -55.0), "fans": (1.0, -40.0)}[what])


async def play(what: str, streams: int, seconds: float, executors: int) -> dict[str, float]:
    """Run one way in this process: wait for a line on standard input, then play all streams through the engine."""
    settings = Settings(executors=executors)
    backend, costs = await load(partial(make_backend, settings), executors, settings.batch_size)
    sessions = RealSessions(session_config(settings), Ports(SileroDetector, PresidioRedactor(), backend.info))
    steps = recorded(audio(what, streams, seconds))
    engine = Engine(settings, sessions, Executors(backend, executors, LIMIT_SECONDS), costs)
    print("warm", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    begin, used = time.perf_counter(), time.process_time()
    for number, parts in enumerate(steps):
        await engine.step(parts, BEGIN_MS + number * STEP_MS, LOADED if what == "speech" else 1)
    await engine.finish(BEGIN_MS + len(steps) * STEP_MS)
    took, used = time.perf_counter() - begin, time.process_time() - used
    engine.executors.close()
    spoken = (len(steps) - 1) * STEP_MS / 1000
    windows = {f"{kind}s": float(count) for kind, count in engine.tally.windows.items()}
    speed, batches = streams * spoken / took, float(engine.tally.batches)
    return {"times real time": speed, "cores": used / spoken, "batches": batches} | windows


async def decoded(count: int, executors: int) -> dict[str, float]:
    """Decode batches of ``ALONE`` windows without an engine, in this process, after a line on standard input."""
    settings = Settings(executors=executors)
    backend, _ = await load(partial(make_backend, settings), executors, settings.batch_size)
    work = windows(list(islice(fitting(), count)))
    print("warm", flush=True)
    sys.stdin.readline()
    _, _, took = timed(backend, work, ALONE, executors)
    return {"times real time": sum(window.audio.size for window in work) / SAMPLE_RATE / took}


def played(what: str, streams: int, seconds: float, executors: int, cores: list[list[int]]) -> list[dict[str, float]]:
    """Run a way in one process for each of ``cores``, pinned to them, all at once, with ``streams`` per core."""
    children: list[subprocess.Popen[str]] = []
    for own in cores:
        shape = [what, str(streams * len(own)), str(seconds), str(executors), ",".join(map(str, own))]
        argv = [sys.executable, "-m", "bench.scale", "--one", *shape]
        children.append(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    try:
        for child in children:
            if cast("TextIO", child.stdout).readline().strip() != "warm":
                raise SystemExit("a process of the benchmark ended")
        for child in children:
            print("go", file=child.stdin, flush=True)
        return [json.loads(cast("TextIO", child.stdout).readline()) for child in children]
    finally:
        for child in children:
            child.terminate()
            child.wait()


def ways(first: int, second: int) -> Iterator[tuple[str, int, list[list[int]]]]:
    """Yield the name of each way, the executors of a process, and the cores of each process."""
    yield "one executor on one core", 1, [[first]]
    yield "two executors on two cores", 2, [[first, second]]
    yield "two processes, an executor and a core each", 1, [[first], [second]]


def main() -> None:
    """Run every way in turn, then the rooms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=16, help="streams of speech a core")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rooms", type=int, default=64, help="streams of noise")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    kept.add_option(parser)
    arguments = parser.parse_args()
    if arguments.one:
        what, streams, seconds, executors, own = arguments.one
        os.sched_setaffinity(0, map(int, own.split(",")))
        if what == "batches":
            way = decoded(int(streams) * EACH, int(executors))
        else:
            way = play(what, int(streams), float(seconds), int(executors))
        print(json.dumps(asyncio.run(way)), flush=True)
        os._exit(0)  # at the interpreter's exit the runtimes' threads would abort
    end_as_by_hand()
    free = sorted(os.sched_getaffinity(0))
    if len(free) < 2:
        raise SystemExit("this needs two cores")
    figures: dict[str, float] = {}
    for name, executors, cores in ways(*free[:2]):
        parts = played("speech", arguments.streams, arguments.seconds, executors, cores)
        speed = sum(part["times real time"] for part in parts)
        count = sum(part["partials"] + part["finals"] for part in parts)
        each = count / sum(part["batches"] for part in parts)
        figures |= {name: speed, f"{name}, windows": count, f"{name}, windows a batch": each}
        print(f"{name}: {speed:.1f} times real time, {count:.0f} windows, {each:.1f} a batch", flush=True)
        alone = sum(part["times real time"] for part in played("batches", arguments.streams, 0, executors, cores))
        figures[f"{name}, batches alone"] = alone
        print(f"{name}, batches alone: {alone:.1f} times real time", flush=True)
    first, *others = [name for name, _, _ in ways(*free[:2])]
    for name in others:
        ratio = figures[name] / figures[first]
        limit = figures[f"{name}, batches alone"] / figures[f"{first}, batches alone"]
        figures |= {f"{name}, ratio": ratio, f"{name}, batches alone, ratio": limit}
        print(f"{name}: {ratio:.2f} times one on one (goal 1.8); batches alone {limit:.2f}")
    for what, title in (("quiet", "brown noise at -55 dBFS"), ("fans", "pink noise at -40 dBFS")):
        room = played(what, arguments.rooms, arguments.seconds, 1, [free[:1]])[0]
        count = room["partials"] + room["finals"]
        figures |= {f"{title}, cores": room["cores"], f"{title}, windows": count}
        share = 100 * room["cores"]
        print(f"{arguments.rooms} rooms, {title}: {share:.0f} % of a core (goal 25), {count:.0f} windows (goal 0)")
    kept.save(arguments, "scale", figures)


if __name__ == "__main__":
    main()
