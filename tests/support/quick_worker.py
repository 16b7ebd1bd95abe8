"""Runs a pool worker that needs no model: ``python -m tests.support.quick_worker``.

Sessions, lanes and transactions are the pool's; voice detector and backend are fakes (``kaption.testing.voices``).
"""

import asyncio
import signal

from kaption.adapters import logs
from kaption.adapters.settings import Settings
from kaption.domain.decoding.port import Costs, Decoded, Window
from kaption.testing.objects import MemoryObjects
from kaption.testing.voices import MODEL, spell
from kaption_gpu.bootstrap import RealSessions, session_config
from kaption_gpu.worker import Worker, WorkerParts
from tests.support.runs import PORTS

READY = "lane_ready"


class Speller:
    """Decodes at once."""

    info = MODEL

    def warm_up(self) -> None:
        """Nothing to warm."""

    def calibrate(self, size: int) -> Costs:  # the port's signature
        return Costs()

    def transcribe(self, batch: list[Window]) -> list[Decoded]:
        return [spell(window) for window in batch]


async def work(settings: Settings) -> None:
    """As ``serve``, with voices that are loud noise."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    sessions = RealSessions(session_config(settings), PORTS)
    await Worker(WorkerParts(settings, Speller(), sessions, MemoryObjects())).run(stop)


if __name__ == "__main__":
    logs.configure(Settings(), "pool", package="kaption_gpu")
    asyncio.run(work(Settings()))
