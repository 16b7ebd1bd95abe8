"""Simulates the pool's scheduling on virtual time: real sessions, detector and planner, and a decoder that only takes time.

    .venv/bin/python -m bench.simulate [--streams 16] [--seconds 60] [--cores 1.2] [--real]

It plays minutes of many streams in seconds, without the machine's noise, to try an idea for the planner. A decode returns the
words of the offline pass in its window and takes the time of ``Costs``. With ``--real`` the backend decodes, and takes the time
that it needs on a quiet machine. No figure here is the product's: compare two runs of this.
"""

import argparse
import heapq
import time
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol
from typing import Final as Const

from bench.live import FRAME, RATE, Watched, changed, final_latencies, showings
from bench.speech import Heard, joined, offline
from bench.words import latencies, percentile
from kaption.adapters.settings import Settings
from kaption.domain.decoding.port import SAMPLE_RATE, Backend, Decoded, Kind, ModelInfo, Window
from kaption.domain.pool.plan import Batch, Candidate, Planner
from kaption.domain.records import AudioRecord, Latency, Output, RunKey
from kaption.domain.redaction.matches import Match
from kaption.domain.run.config import Ports, SessionConfig
from kaption.domain.run.session import Session
from kaption_gpu.engine.backends import make_backend
from kaption_gpu.engine.vad import SileroDetector
from kaption_schemas.records import FinalTranscript, PartialTranscript
from kaption_schemas.topics import Type

BEGIN_MS: Const = 1_000_000
MODEL: Const = ModelInfo("simulated", "sha256:0", "none", frozenset({"en"}))


@dataclass(frozen=True, slots=True)
class Costs:
    """Milliseconds on one thread of the machine of bench/README.md: encoder per second of window, decoder's steps."""

    encode: float = 3.7
    first: float = 0.65
    step: float = 3.5
    item_step: float = 0.85
    words: float = 14.0
    tokens: float = 3.5

    def of(self, batch: Batch) -> float:
        """Return the seconds of ``batch``."""
        many, padded = len(batch.windows), batch.padded / SAMPLE_RATE
        tokens = 4 + self.tokens * max(candidate.seconds for candidate in batch.windows)
        took = many * padded * (self.encode + self.first) + tokens * (self.step + self.item_step * many)
        return (took + (many * self.words if batch.kind is Kind.FINAL else 0)) / 1000


class Decoder(Protocol):
    """Takes a batch's windows with the speech that they cover, and returns their texts and the seconds spent."""

    def __call__(self, batch: Batch, windows: list["Begun"]) -> tuple[list[Decoded], float]:
        """Decode."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A window that a session began: the seconds of the stream that it covers, and the stream's speech."""

    window: Window
    span: tuple[float, float]
    heard: Heard


def perfect(batch: Batch, windows: list[Begun]) -> tuple[list[Decoded], float]:
    """Decode like a perfect model, at the cost of ``Costs``."""
    said = [" ".join(w for w, at in b.heard.words if b.span[0] < at <= b.span[1]) for b in windows]
    return [Decoded(text, "en", -0.2, 0.01, 1.2) for text in said], Costs().of(batch)


def real(backend: Backend) -> Decoder:
    """Decode with ``backend``, and measure the time."""

    def decode(batch: Batch, windows: list[Begun]) -> tuple[list[Decoded], float]:  # noqa: ARG001  # as the other
        begin = time.perf_counter()
        results = backend.transcribe([begun.window for begun in windows])
        return results, time.perf_counter() - begin

    return decode


class NoRedaction:
    """Redacts nothing."""

    def find(self, text: str, entities: tuple[str, ...]) -> tuple[Match, ...]:  # noqa: ARG002  # the port's signature
        """Find nothing."""
        return ()

    def open_suffix(self, text: str, entities: tuple[str, ...]) -> int:  # noqa: ARG002  # the port's signature
        """Show all of the text."""
        return len(text)


@dataclass(slots=True)
class Stream:
    """One run and its results."""

    session: Session
    heard: Heard
    watched: Watched = field(default_factory=lambda: Watched(began=BEGIN_MS))

    def take(self, outputs: list[Output], now_ms: int) -> None:
        """Note transcripts as a reader would."""
        for output in outputs:
            if isinstance(output, PartialTranscript):
                self.watched.partials.append((now_ms, output))
            elif isinstance(output, FinalTranscript):
                self.watched.finals.append((now_ms, output))

    def begin(self, window_id: int) -> Begun:
        """Begin a window, and note the audio that it covers."""
        track = self.session.tracks[0]
        waiting = {id(s.audio): (s.speech / RATE, s.end / RATE) for s in track.segments}
        before = (track.speech_start or 0) / RATE, track.position / RATE
        window = self.session.begin(window_id)
        return Begun(window, waiting.get(id(window.audio), before), self.heard)


@dataclass(frozen=True, slots=True)
class Done:
    """A finished batch: its results, and the seconds that it took."""

    batch: Batch
    results: list[Decoded]
    seconds: float


def simulate(
    streams: list[Stream], pcm: list[bytes], planner: Planner, decode: Decoder, speed: float
) -> dict[Kind, list[float]]:
    """Play all streams in real time on two executors of ``speed``; return the seconds of every window by kind."""
    size, order = round(FRAME * RATE), count()

    def owner(candidate: Candidate) -> Stream:
        number: Any = candidate.owner
        stream: Stream = streams[number]
        return stream

    events: list[tuple[float, int, tuple[int, int] | Done]] = []
    for number, audio in enumerate(pcm):
        for sequence in range(len(audio) // (2 * size)):
            late = (sequence + 1) * FRAME + FRAME * number / len(pcm) + 0.02
            heapq.heappush(events, (late, next(order), (number, sequence)))
    free = 2
    done: dict[Kind, list[float]] = {kind: [] for kind in Kind}
    while events:
        now, _, what = heapq.heappop(events)
        now_ms = BEGIN_MS + round(now * 1000)
        if not isinstance(what, Done):
            number, sequence = what
            stream, at = streams[number], sequence * size
            body = pcm[number][2 * at : 2 * (at + size)]
            record = AudioRecord(
                Type.CHUNK, stream.session.key, sequence, now_ms, now_ms, sequence, at, size, RATE, 1, body
            )
            stream.take(list(stream.session.feed(record)), now_ms)
        else:
            free += 1
            planner.spent(what.batch, what.seconds / speed)
            done[what.batch.kind] += [what.seconds / len(what.results)] * len(what.results)
            for candidate, result in zip(what.batch.windows, what.results, strict=True):
                stream = owner(candidate)
                stream.take(list(stream.session.apply(candidate.window, result, now_ms)), now_ms)
        while free:
            waiting = [
                Candidate(n, w.window_id, "default", Latency.LIVE, w.kind, w.seconds, w.overdue_s)
                for n, stream in enumerate(streams)
                for w in stream.session.wants(now_ms)
            ]
            chosen = planner.next(waiting)
            if chosen is None:
                break
            free -= 1
            begun = [owner(candidate).begin(candidate.window) for candidate in chosen.windows]
            results, seconds = decode(chosen, begun)
            heapq.heappush(events, (now + seconds / speed, next(order), Done(chosen, results, seconds)))
    return done


def main() -> None:
    """Simulate and print what bench.live prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--cores", type=float, default=1.2, help="cores of the two that the executors get")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--real", action="store_true", help="decode with the backend that this machine's settings name")
    arguments = parser.parse_args()
    stretches = joined(arguments.streams, arguments.seconds)
    heard = offline(stretches)
    decode, model = perfect, MODEL
    if arguments.real:
        backend = make_backend(Settings(executors=1))
        backend.warm_up()
        decode, model = real(backend), backend.info
    ports = Ports(SileroDetector, NoRedaction(), model)
    streams = [
        Stream(Session(RunKey("default", f"s{n}", f"run{n}"), Latency.LIVE, SessionConfig(), ports), words)
        for n, words in enumerate(heard)
    ]
    pcm = [stretch.pcm[:, 0].tobytes() for stretch in stretches]
    done = simulate(streams, pcm, Planner(arguments.batch), decode, arguments.cores / 2)
    shown, committed, finals = list[float](), list[float](), list[float]()
    for stream, stretch in zip(streams, stretches, strict=True):
        begin = len(stretch.pcm) / RATE / 2
        more = latencies(showings(stream.watched), stream.heard, begin)
        shown, committed = shown + more[0], committed + more[1]
        finals += final_latencies(stream.watched, stream.heard, begin)
    for name, values in (("shown", shown), ("committed", committed), ("finals", finals)):
        print(f"  {name:9} p50 {percentile(values, 0.5):.2f} s, p95 {percentile(values, 0.95):.2f} s ({len(values)})")
    for kind, took in done.items():
        print(f"  {len(took)} {kind}s, {1000 * sum(took) / max(1, len(took)):.0f} ms each")
    stable, lost = (sum(n) for n in zip(*(changed(stream.watched) for stream in streams), strict=True))
    print(f"  {stable} stable words, of which finals changed {100 * lost / max(1, stable):.1f} %")


if __name__ == "__main__":
    main()
