"""Mixes two channels to one in blocks aligned to sample 0, so that the output does not depend on how samples were sliced.

Each block is half the sum of both channels. If the sum cancels their content, as it does when one channel has swapped
polarity, the block is half their difference.
"""

import numpy as np
import numpy.typing as npt

Pcm = npt.NDArray[np.int16]

#: The sum has lost the speech if its power is lower than the difference's by this factor (12 dB). Two voices, one on each
#: channel, have equal power in both; so has a single voice with a silent channel.
_CANCELLED = 16
_BLOCK_MS = 40


class Mixer:
    """Mixes a run from any sample on. Positions are absolute: source samples in, source samples out."""

    def __init__(self, rate: int) -> None:
        self._block = rate * _BLOCK_MS // 1000
        self._held: Pcm = np.zeros((0, 2), np.int16)
        self._first = 0

    def block_end(self, sample: int) -> int:
        """The end of the block that contains ``sample``. If a block begins there, ``sample`` itself."""
        return -(-sample // self._block) * self._block

    def feed(self, pcm: Pcm, first: int) -> tuple[Pcm, int]:
        """Take samples, shape (n, 2), from ``first`` on. Returns the mono samples of whole blocks, and the position of the first.

        If ``first`` does not follow the held samples, these are dropped: a run leaps over long silence.
        """
        if first != self._first + len(self._held):
            self._first, self._held = first, self._held[:0]
        at, self._held = self._first, np.concatenate([self._held, pcm])
        whole = (at + len(self._held)) // self._block * self._block - at
        if whole <= 0:
            return np.zeros(0, np.int16), at
        ready, self._held = self._held[:whole], self._held[whole:]
        self._first = at + whole
        return self._mix(ready, at), at

    def flush(self) -> tuple[Pcm, int]:
        """Return the held samples mixed, as if the run ended here."""
        ready, self._held = self._held, self._held[:0]
        return self._mix(ready, self._first), self._first

    def _mix(self, pcm: Pcm, first: int) -> Pcm:
        before = first % self._block
        blocks = np.zeros((-(-(before + len(pcm)) // self._block) * self._block, 2), np.int32)
        blocks[before : before + len(pcm)] = pcm
        left, right = blocks.reshape(-1, self._block, 2).transpose(2, 0, 1)
        # Sums of integers below 2^53 are exact in any order, so every machine decides alike.
        exact = left.astype(np.float64), right.astype(np.float64)
        both = 2 * np.einsum("ij,ij->i", *exact)
        power = sum(np.einsum("ij,ij->i", one, one) for one in exact)
        cancels = power - both > _CANCELLED * (power + both)
        sign = np.where(cancels, -1, 1).astype(np.int32)[:, None]
        double = left + sign * right
        mono: Pcm = ((double + (double < 0)) >> 1).astype(np.int16)  # rounds halves towards zero
        return mono.reshape(-1)[before : before + len(pcm)]
