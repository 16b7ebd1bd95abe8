"""What `kaption up` costs with nothing to do: seconds until it is ready, and processor and memory of each of its processes.

.venv/bin/python -m bench.idle [--kafka apache] [--seconds 60]
"""

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path

from tests.support.brokers import kafka_home
from tests.support.up import group_of, start_up

_TICKS = os.sysconf("SC_CLK_TCK")


def used(pid: int) -> tuple[float, float]:
    """Processor seconds and resident MiB of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    seconds = (int(fields[11]) + int(fields[12])) / _TICKS
    return seconds, int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def name(pid: int) -> str:
    """The end of a process's command line, enough to tell it from its siblings."""
    words = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").split()
    return " ".join(Path(word).name for word in words)[:72]


def below(pid: int) -> list[int]:
    """``pid`` and every process under it."""
    return [pid, *(deeper for child in group_of(pid) for deeper in below(child))]


async def main() -> None:
    """Start, wait a little, and watch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kafka", default="embedded")
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    home = kafka_home()
    if home is not None:
        os.environ.setdefault("KAFKA_HOME", str(home))
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        up = await start_up(Path(folder), ("--kafka", arguments.kafka, "--kafka-port", "0", "--http-port", "0"))
        print(f"ready after {time.monotonic() - begin:.1f} s (goal < 20)", flush=True)
        try:
            await asyncio.sleep(15)
            pids = below(up.child.pid)
            before = {pid: used(pid)[0] for pid in pids}
            await asyncio.sleep(arguments.seconds)
            after = {pid: used(pid) for pid in pids}
            shares = {pid: 100 * (after[pid][0] - before[pid]) / arguments.seconds for pid in pids}
            for pid in pids:
                print(f"{shares[pid]:5.1f} % {after[pid][1]:6.0f} MiB  {name(pid)}")
        finally:
            up.child.stop(60)
    resident = sum(memory for _, memory in after.values())
    print(f"idle: {sum(shares.values()):.1f} % of a core (goal < 5), {resident:.0f} MiB (goal < 1536)")


if __name__ == "__main__":
    asyncio.run(main())
