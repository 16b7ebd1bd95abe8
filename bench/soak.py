"""Plays many streams for an hour through the whole pipeline, and measures the pool's memory and the captions' return after a kill.

    .venv/bin/python -m bench.soak [--minutes 60] [--streams 16]

A quarter of the streams talks first, then all of them for ``--minutes``; growth is from the median of the minute at half of
that time to that of the last minute. Then as many more streams join. The difference is the cost of a further stream; from a
quarter to all, the cost includes batches that are full only then. Then four new streams talk while the pool gets SIGTERM, and
later SIGKILL; `kaption up` restarts it each time, and the time counts from the signal to the new process's first transcript.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import statistics
import time

from bench import figures as kept
from bench.live import started
from bench.processes import end_as_by_hand, usage
from bench.speech import joined
from bench.talk import Crowd, Talk, crowd, pool
from kaption.adapters.settings import Settings
from kaption.testing.brokers import kafka_home
from kaption.testing.up import Up

#: Seconds over which the memory of a stable number of streams is measured.
TAKE = 20.0
RESTART_STREAMS = 4


async def resident(up: Up, seconds: float) -> float:
    """Return the pool's memory in MiB: the median over ``seconds``."""
    pid, taken, end = pool(up), list[float](), time.monotonic() + seconds
    while time.monotonic() < end:
        taken.append(usage(pid).resident)
        await asyncio.sleep(1)
    return statistics.median(taken)


async def memory(
    up: Up, people: Crowd, streams: int, minutes: float, settle: float
) -> tuple[dict[str, float], list[Talk]]:
    """Return the pool's MiB with a quarter of the streams, with all and with twice as many, and the growth while all talk."""
    few = max(1, streams // 4)
    talks = await people.add(few)
    await asyncio.sleep(settle)
    small = await resident(up, TAKE)
    print(f"{few} streams: {small:.0f} MiB", flush=True)
    begin = time.monotonic()
    talks += await people.add(streams - few)
    await asyncio.sleep(settle)
    large = await resident(up, TAKE)
    first = (large - small) / (streams - few)
    print(f"{streams} streams: {large:.0f} MiB, a further stream {first:.2f} MiB", flush=True)
    sample = min(60.0, minutes * 60 / 6)
    await asyncio.sleep(max(0.0, begin + minutes * 30 - time.monotonic()))
    half = await resident(up, sample)
    await asyncio.sleep(max(0.0, begin + minutes * 60 - sample - time.monotonic()))
    end = await resident(up, sample)
    growth = end / half - 1
    print(f"after {minutes / 2:g} min {half:.0f} MiB, after {minutes:g} {end:.0f}: {100 * growth:+.1f} % (goal < 3)")
    talks += await people.add(streams)
    await asyncio.sleep(settle)
    twice = await resident(up, TAKE)
    each = (twice - end) / streams
    print(f"{2 * streams} streams: {twice:.0f} MiB, a further stream {each:.2f} MiB (goal <= 2)", flush=True)
    figures = {
        "MiB a further stream": first,
        "MiB a further stream, all to twice as many": each,
        "growth in the second half": growth,
        "MiB at half": half,
        "MiB at the end": end,
    }
    return figures, talks


async def restarted(up: Up, talks: list[Talk], number: signal.Signals) -> float:
    """Return the seconds from the signal to the first transcript of the new process."""
    pid = pool(up)
    at = time.time()
    os.kill(pid, number)
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        while True:
            usage(pid)  # raises once the process has ended
            await asyncio.sleep(0.02)
    gone = time.time() * 1000
    while True:
        times = [ms for talk in talks for ms, _ in (*talk.watched.partials, *talk.watched.finals) if ms > gone]
        if times:
            return min(times) / 1000 - at
        if time.time() - at > 120:
            raise TimeoutError("no transcript two minutes after the signal")
        await asyncio.sleep(0.1)


async def main() -> None:
    """Measure memory first, then the two restarts."""
    end_as_by_hand()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument(
        "--settle", type=float, default=60, help="seconds until the memory of a number of streams is stable"
    )
    parser.add_argument("--kafka", default="apache", help="embedded or apache")
    kept.add_option(parser)
    arguments = parser.parse_args()
    home = kafka_home()
    if home is not None:
        os.environ.setdefault("KAFKA_HOME", str(home))
    stretches = joined(arguments.streams, 120)
    async with started(arguments.kafka) as up, crowd(up, stretches) as people:
        figures, talks = await memory(up, people, arguments.streams, arguments.minutes, arguments.settle)
        lost = await people.end(talks, 120)
        talks = await people.add(RESTART_STREAMS)
        limit = Settings().session_timeout_ms / 1000
        for number, goal in ((signal.SIGTERM, 5.0), (signal.SIGKILL, limit + 5)):
            await asyncio.sleep(20)
            took = await restarted(up, talks, number)
            figures[f"first caption after {number.name}"] = took
            print(f"first caption {took:.1f} s after {number.name} (goal <= {goal:g})", flush=True)
        await asyncio.sleep(10)
        lost += await people.end(talks, 120)
    figures["lost"] = float(len(lost))
    print(f"{len(lost)} runs lost something (goal 0)", *lost, sep="\n")
    kept.save(arguments, "soak", figures)


if __name__ == "__main__":
    asyncio.run(main())
