"""Fakes a backend without a model: its text is a window's number of samples and their sum."""

import threading
import time

from kaption.domain.decoding.port import Costs, Decoded, ModelInfo, Window

#: The backend fails on a batch with a window that begins with this sample value.
POISON = 667


class CountingBackend:
    """Returns the number and the sum of a window's samples as text, after ``seconds``."""

    info = ModelInfo("counting", "0", "test")

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.batches: list[int] = []
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Do nothing: there is nothing to warm up."""

    def calibrate(self, size: int) -> Costs:  # the port's signature
        """Return the planner's default costs."""
        return Costs()

    def transcribe(self, batch: list[Window]) -> list[Decoded]:
        time.sleep(self.seconds)
        with self._lock:
            self.batches.append(len(batch))
        if any(window.audio[0] == POISON for window in batch):
            raise RuntimeError("poisoned")
        return [Decoded(f"{len(w.audio)}:{int(w.audio.sum())}", None, 0.0, 0.0, 1.0) for w in batch]
