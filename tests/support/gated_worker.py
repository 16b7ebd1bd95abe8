"""Runs a pool worker that holds two batches in flight: ``python -m tests.support.gated_worker``.

It decodes like any other until a batch of finals is done. From then on none returns; when two are in flight, it prints
``HELD`` and waits to be killed.
"""

import sys
import threading

from kaption.domain.decoding.port import Backend, Costs, Decoded, Kind, Window
from kaption_gpu.__main__ import main
from kaption_gpu.engine.backends import make_backend

HELD = "two batches are in flight"


def _tell() -> None:
    sys.stdout.write(f"{HELD}\n")
    sys.stdout.flush()


class Gate:
    """A backend that lets batches through to another, up to the first of finals."""

    def __init__(self, backend: Backend) -> None:
        self.info = backend.info
        self._backend = backend
        self._closed = threading.Event()
        self._both = threading.Barrier(2, _tell)

    def warm_up(self) -> None:
        self._backend.warm_up()

    def calibrate(self, size: int) -> Costs:
        return self._backend.calibrate(size)

    def transcribe(self, batch: list[Window]) -> list[Decoded]:
        if self._closed.is_set():
            self._both.wait()
            threading.Event().wait()
        results = self._backend.transcribe(batch)
        if batch[0].kind is Kind.FINAL:
            self._closed.set()
        return results


if __name__ == "__main__":
    main(lambda settings: Gate(make_backend(settings)))
