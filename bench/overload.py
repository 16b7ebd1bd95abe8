"""Plays twice as many streams as the machine holds, then half as many: measures what the pool sheds, and that nothing is lost.

    .venv/bin/python -m bench.overload [--capacity 16] [--minutes 10]

The pool accepts all runs before it falls behind. Then three of four end, and the rest continues for two minutes. Latency is
back from the moment after which every ten seconds have partials and finals, 95 % of partials come within 2 s of the sound
that they cover, and 95 % of finals within 5 s.
"""

import argparse
import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterable

from bench import figures as kept
from bench.live import Watched, started
from bench.processes import end_as_by_hand
from bench.speech import joined
from bench.talk import Talk, crowd, gauge
from bench.words import percentile
from kaption.domain.pool.overload import Step
from kaption.testing.brokers import kafka_home
from kaption.testing.up import Up

BIN = 10.0
PARTIAL_SECONDS, FINAL_SECONDS = 2.0, 5.0
AFTER_SECONDS = 120.0
#: Seconds that ended runs may take to complete: the pool decodes the speech of the overload late.
COMPLETE_SECONDS = 1800.0


async def steps(up: Up, seen: Counter[Step]) -> None:
    """Count the seconds on each step until cancelled."""
    while True:
        value = await gauge(up, "kaption_overload_step")
        if value is not None:
            seen[Step(int(value))] += 1
        await asyncio.sleep(1)


def lateness(watched: Watched, *, finals: bool) -> list[tuple[float, float]]:
    """Return when each partial or final came, in seconds since the epoch, and its delay after the end of its audio."""
    records = [(at, f.end_ms) for at, f in watched.finals if f.text] if finals else []
    records += [] if finals else [(at, p.end_ms) for at, p in watched.partials]
    return [(at / 1000, (at - watched.began - end) / 1000) for at, end in records]


def back(late: Iterable[tuple[float, float]], since: float, until: float, limit: float) -> float:
    """Return the seconds after ``since`` from which, up to ``until``, 95 % of every ten seconds' records come within ``limit``.

    Ten seconds without a record are late too, since streams talk all the time.
    """
    bins: list[list[float]] = [[] for _ in range(int((until - since) // BIN))]
    for at, seconds in late:
        number = int((at - since) // BIN)
        if 0 <= number < len(bins):
            bins[number].append(seconds)
    bad = [number for number, values in enumerate(bins) if not values or percentile(values, 0.95) > limit]
    return BIN * (max(bad) + 1) if bad else 0.0


def tail(talks: list[Talk], begin: float, end: float, *, finals: bool) -> float:
    """Return the 95th percentile of the delay of records between two moments."""
    return percentile(
        [s for talk in talks for at, s in lateness(talk.watched, finals=finals) if begin <= at < end], 0.95
    )


async def main() -> None:
    """Play too many streams, then few."""
    end_as_by_hand()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capacity", type=int, default=16, help="streams that the machine holds (P1)")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--kafka", default="apache", help="embedded or apache")
    kept.add_option(parser)
    arguments = parser.parse_args()
    home = kafka_home()
    if home is not None:
        os.environ.setdefault("KAFKA_HOME", str(home))
    many, few = 2 * arguments.capacity, max(1, arguments.capacity // 2)
    seen: Counter[Step] = Counter()
    async with started(arguments.kafka) as up, crowd(up, joined(min(many, 16), 120)) as people:
        watching = asyncio.create_task(steps(up, seen))
        talks = await people.add(many)
        begin = time.time()
        await asyncio.sleep(arguments.minutes * 60)
        since = time.time()
        ended, rest = talks[few:], talks[:few]
        lost, _ = await asyncio.gather(people.end(ended, COMPLETE_SECONDS), asyncio.sleep(AFTER_SECONDS))
        lost += await people.end(rest, COMPLETE_SECONDS)
        watching.cancel()
    figures: dict[str, float] = {"streams": float(many), "runs that lost something": float(len(lost))}
    print(f"{many} streams for {arguments.minutes:g} min, then {few}: {len(lost)} runs lost something (goal 0)")
    for wrong in lost:
        print(f"  {wrong}")
    out = max(at / 1000 - since for talk in ended for at, _ in talk.watched.finals)
    figures["last final of ended runs"] = out
    print(f"  the last final of the runs that ended came {out:.0f} s later")
    for name, finals, limit in (("partials", False, PARTIAL_SECONDS), ("finals", True, FINAL_SECONDS)):
        late = [pair for talk in rest for pair in lateness(talk.watched, finals=finals)]
        seconds = back(late, since, since + AFTER_SECONDS, limit)
        high = tail(talks, begin, since, finals=finals)
        figures |= {f"{name} back": seconds, f"{name} p95 in the overload": high}
        print(f"  {name}: p95 {high:.1f} s late in the overload, within {limit:g} s after {seconds:.0f} s (goal 60)")
    figures |= {f"seconds on {step.name.lower()}": float(seen[step]) for step in Step}
    print("  " + ", ".join(f"{seen[step]} s {step.name.lower()}" for step in Step))
    kept.save(arguments, "overload", figures)


if __name__ == "__main__":
    asyncio.run(main())
