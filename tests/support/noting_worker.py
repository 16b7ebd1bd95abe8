"""``python -m tests.support.noting_worker FILE``: a pool worker that notes in FILE each window that it decodes.

A line a window, ``begun INDEX SECONDS`` and ``done INDEX SECONDS``: the segment's index in a run of one channel, and its audio.
"""

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from kaption.adapters.settings import Settings
from kaption.domain.decoding.port import SAMPLE_RATE, Backend, Costs, Decoded, Window
from kaption_gpu.__main__ import main
from kaption_gpu.engine.backends import make_backend
from kaption_schemas.audio import MAX_CHANNELS


class Note(NamedTuple):
    """One line."""

    what: str
    segment: int
    seconds: float


def notes(path: Path) -> list[Note]:
    """What was noted so far; a last line that a kill cut short is left out."""
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [Note(what, int(segment), float(seconds)) for what, segment, seconds in map(str.split, lines)]


class NotingBackend:
    """A backend with a note before and after each batch."""

    def __init__(self, backend: Backend, path: Path) -> None:
        self.info = backend.info
        self._backend = backend
        # Unbuffered: what was written before a SIGKILL stays.
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def warm_up(self) -> None:
        self._backend.warm_up()

    def calibrate(self, size: int) -> Costs:
        return self._backend.calibrate(size)

    def transcribe(self, batch: list[Window]) -> list[Decoded]:
        self._note("begun", batch)
        results = self._backend.transcribe(batch)
        self._note("done", batch)
        return results

    def _note(self, what: str, windows: Sequence[Window]) -> None:
        lines = [f"{what} {w.id // MAX_CHANNELS - 1} {len(w.audio) / SAMPLE_RATE:.3f}\n" for w in windows]
        os.write(self._file, "".join(lines).encode())


def _make(path: Path, settings: Settings) -> Backend:
    return NotingBackend(make_backend(settings), path)


if __name__ == "__main__":
    main(partial(_make, Path(sys.argv.pop())))
