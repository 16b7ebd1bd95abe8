"""A child for the supervisor's tests: ``child.py PORT MODE``; serves /ready as a process of Kaption's does.

Modes: ``well``; ``stubborn`` takes no notice of SIGTERM; ``die`` ends at once with status 3; ``once FILE`` dies unless
FILE exists, and makes it; ``sulk FILE`` is not ready while FILE exists; ``parent`` starts a child of its own that takes no notice of SIGTERM.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from kaption.adapters.settings import Settings
from kaption.service.health import Health


async def main(port: int, mode: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set if mode != "stubborn" else lambda: None)
    health = Health()
    await health.start(Settings(http_port=port), "child")
    health.ready = True
    while mode == "sulk" and not stop.is_set():
        health.ready = not os.path.exists(sys.argv[3])  # noqa: ASYNC240  # a moment of the test
        await asyncio.sleep(0.05)
    await stop.wait()
    await health.stop()


def start_a_child(pid_file: Path) -> None:
    ignore = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    pid_file.write_text(str(subprocess.Popen([sys.executable, "-c", ignore]).pid))


if __name__ == "__main__":
    if sys.argv[2] == "parent":
        start_a_child(Path(sys.argv[3]))
    if sys.argv[2] == "die" or (sys.argv[2] == "once" and not Path(sys.argv[3]).exists()):
        if sys.argv[2] == "once":
            Path(sys.argv[3]).touch()
        line = {"level": "ERROR", "event": "start_failed", "error": "IncompatibleError: no model called huge"}
        sys.stderr.write(json.dumps(line) + "\n")
        sys.exit(3)
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
