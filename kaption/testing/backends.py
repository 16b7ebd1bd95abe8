"""A backend without a model: it says how many samples a window has, and their sum."""

import threading
import time

from kaption.domain.decoding.port import Costs, Decoded, ModelInfo, Window

#: A batch with a window whose first sample has this value makes the backend fail.
POISON = 667


class CountingBackend:
    """Says the sum of a window's samples, after ``seconds``."""

    info = ModelInfo("counting", "0", "test")

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.batches: list[int] = []
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Nothing to warm."""

    def calibrate(self, size: int) -> Costs:  # the port's signature
        """What the planner assumes."""
        return Costs()

    def transcribe(self, batch: list[Window]) -> list[Decoded]:
        time.sleep(self.seconds)
        with self._lock:
            self.batches.append(len(batch))
        if any(window.audio[0] == POISON for window in batch):
            raise RuntimeError("poisoned")
        return [Decoded(f"{len(w.audio)}:{int(w.audio.sum())}", None, 0.0, 0.0, 1.0) for w in batch]
