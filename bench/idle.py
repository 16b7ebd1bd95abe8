"""Measures an idle `kaption up`: seconds until it is ready, and CPU and memory of each of its processes.

.venv/bin/python -m bench.idle [--kafka apache] [--seconds 60]
"""

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path

from bench.processes import end_as_by_hand, shares, usages
from kaption.testing.brokers import kafka_home
from kaption.testing.up import running_up


async def main() -> None:
    """Start, wait a little, and measure."""
    end_as_by_hand()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kafka", default="embedded")
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    home = kafka_home()
    if home is not None:
        os.environ.setdefault("KAFKA_HOME", str(home))
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        address = ("--kafka", arguments.kafka, "--kafka-port", "0", "--http-port", "0")
        async with running_up(Path(folder), address) as up:
            print(f"ready after {time.monotonic() - begin:.1f} s (goal < 20)", flush=True)
            await asyncio.sleep(15)
            before = usages(up.child.pid)
            await asyncio.sleep(arguments.seconds)
            after = usages(up.child.pid)
            used = shares(before, after, arguments.seconds)
            for pid, share in used.items():
                print(f"{100 * share:5.1f} % {after[pid].resident:6.0f} MiB  {after[pid].name}")
    resident = sum(after[pid].resident for pid in used)
    print(f"idle: {100 * sum(used.values()):.1f} % of a core (goal < 5), {resident:.0f} MiB (goal < 1536)")


if __name__ == "__main__":
    asyncio.run(main())
