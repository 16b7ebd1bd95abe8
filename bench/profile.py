"""Draws where CPU time goes under load: every process, and the packages at work within those of Python.

    .venv/bin/python -m bench.profile [--streams 16] [--seconds 40] [--files] [--picture bench/results/profile.svg]

The load is live streams, or as many files at once, repeated as soon as they are done, so that the samples also contain the
reading and decoding of files.

py-spy samples the Python processes of ``kaption up`` and this one, the client. It needs root, since the processes hide from
their user (``hide`` in ``confinement``). /proc has each thread's CPU time. A Python thread's time is divided among packages by
their share of the samples. The runtimes' own threads run no Python: their time counts for what the executors' threads wait for.
"""

import argparse
import asyncio
import contextlib
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from bench.figures import commit, machine
from bench.live import files, live, started
from bench.processes import below, ended_seconds, thread_seconds, usage
from bench.speech import Spoken, joined, offline
from kaption.testing.brokers import kafka_home
from kaption.testing.up import Up

SAMPLES_A_SECOND = 50
#: Seconds of load before the samples begin.
SETTLE_SECONDS = 10.0
#: Shares of a core that are too small to draw.
SMALL = 0.004
_FRAME = re.compile(r"^(?P<function>.*) \((?P<file>[^:()]*)(?::\d+)?\)$")
_THREAD = re.compile(r"^thread \((?P<id>\d+)\)(?:: (?P<name>.*))?$")
#: The frame in which an event loop waits: no work.
_WAITING = ".select (selectors.py"
#: Methods of a backend's runtime that compute outside Python.
_NATIVE = ("encode", "generate", "align", "detect")
_COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#9d755d", "#bab0ac")


@dataclass(frozen=True, slots=True)
class Bar:
    """One process: its name, and its cores by use."""

    name: str
    parts: dict[str, float]


def subject(frames: Sequence[str]) -> str:
    """Return the subject of a stack, outermost frame first: the innermost package other than Python's own and numpy."""
    for frame in reversed(frames):
        match = _FRAME.match(frame)
        if match is None:
            continue
        file, function = match["file"], match["function"].rpartition(".")[2]
        if "kaption_gpu/engine/backends" in file and function in _NATIVE:
            return function
        package = file.split("/")[0]
        if package in {"kaption", "kaption_gpu", "kaption_streams", "kaption_schemas"}:
            return file.removesuffix(".py")
        if package in {"aiokafka", "faust", "mode", "opentelemetry", "pydantic", "faster_whisper", "bench"}:
            return {"mode": "faust"}.get(package, package)
    return "asyncio"


def read_samples(lines: Iterable[str]) -> dict[int, Counter[str]]:
    """Read py-spy's raw output with threads: for each thread id the samples by subject, without waiting event loops."""
    threads: dict[int, Counter[str]] = {}
    for line in lines:
        stack, _, count = line.rstrip("\n").rpartition(" ")
        first, *frames = stack.split(";")
        found = _THREAD.match(first)
        if found:
            counts = threads.setdefault(int(found["id"]), Counter())
            if not (frames and _WAITING in frames[-1]):
                counts[subject(frames)] += int(count)
    return threads


def attribute(used: dict[int, float], samples: dict[int, Counter[str]]) -> dict[str, float]:
    """Return a process's seconds by subject: each thread's (``used``, by id) divided by its samples.

    Threads without samples are the runtimes'. Their seconds are divided by the samples of native methods.
    """
    parts: Counter[str] = Counter()
    native: Counter[str] = Counter()
    for counts in samples.values():
        native.update({what: n for what, n in counts.items() if what in _NATIVE})
    other = Counter({"other": 1})
    for thread, seconds in used.items():
        counts = samples.get(thread, native) or other
        total = sum(counts.values())
        for what, count in counts.items():
            parts[what] += seconds * count / total  # type: ignore[assignment]  # a counter of seconds
    return dict(parts)


def _title(name: str) -> str:
    """Return a process's name in the picture, from its command line without folders."""
    words = name.split()
    return {"java": "Kafka (Java)", "weed": "object store"}.get(words[0], words[-1].rpartition("kaption.adapters.")[2])


async def sampled(up: Up, seconds: float, folder: Path) -> list[Bar]:
    """Sample every process of ``up`` and this one for ``seconds``."""
    pids = [os.getpid(), *below(up.child.pid)]
    names = {pid: _title(usage(pid).name) if pid != os.getpid() else "this client" for pid in pids}
    python = [pid for pid in pids if "python" in os.readlink(f"/proc/{pid}/exe")]
    before = {pid: thread_seconds(pid) for pid in pids}
    ended = {pid: ended_seconds(pid) for pid in pids}
    files = {pid: folder / f"{pid}.raw" for pid in python}
    spying = [
        await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("py-spy")), "record", "--pid", str(pid), "--duration", str(round(seconds)), "--rate", str(SAMPLES_A_SECOND),
            "--threads", "--idle", "--nonblocking", "--format", "raw", "--output", str(file),
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )
        for pid, file in files.items()
    ]  # fmt: skip
    await asyncio.gather(*(spy.wait() for spy in spying))
    bars: list[Bar] = []
    for pid in pids:
        after = thread_seconds(pid)
        used = {thread: (after[thread] - before[pid].get(thread, 0.0)) / seconds for thread in after}
        if pid in files and files[pid].is_file():
            parts = attribute(used, read_samples(files[pid].read_text().splitlines()))
        else:
            parts = {"all of it": sum(used.values())}
        parts["py-spy" if pid == os.getpid() else "children that ended"] = (ended_seconds(pid) - ended[pid]) / seconds
        if sum(parts.values()) >= SMALL:
            bars.append(Bar(names[pid], parts))
    return sorted(bars, key=lambda bar: -sum(bar.parts.values()))


def draw(bars: Sequence[Bar], title: str) -> str:
    """Draw the bars as SVG, one below the other, each part with its name and its share of a core."""
    scale, row, left = 620 / max(sum(bar.parts.values()) for bar in bars), 20, 150
    lines: list[str] = []
    y = 40
    for bar in bars:
        x = float(left)
        total = sum(bar.parts.values())
        lines.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(bar.name)} {total:.2f}</text>')
        parts = sorted(((n, v) for n, v in bar.parts.items() if v >= SMALL), key=lambda item: -item[1])
        for number, (_, value) in enumerate(parts):
            colour = _COLOURS[number % len(_COLOURS)]
            lines.append(f'<rect x="{x:.1f}" y="{y}" width="{value * scale:.1f}" height="16" fill="{colour}"/>')
            x += value * scale
        for number, (name, value) in enumerate(parts):
            y += row
            colour = _COLOURS[number % len(_COLOURS)]
            lines.append(f'<rect x="{left}" y="{y + 3}" width="10" height="10" fill="{colour}"/>')
            lines.append(f'<text x="{left + 16}" y="{y + 13}">{value:.3f} {escape(name)}</text>')
        y += row + 10
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="800" height="{y}" font-family="sans-serif" font-size="12">'
    white = f'<rect width="800" height="{y}" fill="white"/><text x="8" y="20" font-size="13">{escape(title)}</text>'
    return "\n".join([head, white, *lines, "</svg>", ""])


async def again_and_again(up: Up, stretches: list[Spoken]) -> None:
    """Publish all stretches as files at once, repeatedly, until cancelled."""
    while True:
        await files(up.settings(), stretches)


async def main() -> None:
    """Play, sample, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=16, help="live streams, or files")
    parser.add_argument("--files", action="store_true", help="files instead of live streams")
    parser.add_argument("--seconds", type=float, default=40, help="of samples")
    parser.add_argument("--kafka", default="apache", help="embedded or apache")
    parser.add_argument("--picture", type=Path, default=Path("bench/results/profile.svg"))
    arguments = parser.parse_args()
    home = kafka_home()
    if home is not None:
        os.environ.setdefault("KAFKA_HOME", str(home))
    stretches = joined(arguments.streams, arguments.seconds + 2 * SETTLE_SECONDS)
    what = "files" if arguments.files else "live streams"
    heard = [] if arguments.files else offline(stretches)
    with tempfile.TemporaryDirectory() as folder:
        async with started(arguments.kafka) as up:
            load = again_and_again(up, stretches) if arguments.files else live(up, stretches, heard, arguments.streams)
            playing = asyncio.create_task(load)
            await asyncio.sleep(SETTLE_SECONDS)
            bars = await sampled(up, arguments.seconds, Path(folder))
            if arguments.files:
                playing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await playing
    total = sum(sum(bar.parts.values()) for bar in bars)
    title = f"{arguments.streams} {what}: {total:.2f} cores. {machine()}, {commit()}"
    arguments.picture.parent.mkdir(parents=True, exist_ok=True)
    arguments.picture.write_text(draw(bars, title))
    print(title)
    for bar in bars:
        parts = sorted(bar.parts.items(), key=lambda item: -item[1])
        print(f"  {sum(bar.parts.values()):.2f} {bar.name}: " + ", ".join(f"{v:.3f} {n}" for n, v in parts[:12]))


if __name__ == "__main__":
    asyncio.run(main())
