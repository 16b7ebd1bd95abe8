"""Resamples source audio to 16 kHz in blocks aligned to sample 0, so that the output does not depend on slicing.

Each 40 ms block is resampled alone, with 20 ms of audio on either side, which is longer than the filter. The sides are
then removed. So a block depends on source samples only, and resampling can start again at any block.
"""

import numpy as np
import numpy.typing as npt
import soxr

from kaption.domain.decoding.port import SAMPLE_RATE, Audio
from kaption.domain.run.samples import Samples

Pcm = npt.NDArray[np.int16]

BLOCK = SAMPLE_RATE * 40 // 1000
_SIDE = SAMPLE_RATE * 20 // 1000


def to_source(position: int, rate: int) -> int:
    """The source sample at 16 kHz position ``position``, rounded down."""
    return position * rate // SAMPLE_RATE


class Resampler:
    """One channel from ``rate`` to 16 kHz. Positions are absolute: source samples in, 16 kHz samples out."""

    def __init__(self, rate: int, *, start: int = 0) -> None:
        """Begin at the block that contains 16 kHz position ``start``."""
        self.rate = rate
        self._block = rate * 40 // 1000
        self._side = 0 if rate == SAMPLE_RATE else rate * 20 // 1000
        self._next = start // BLOCK
        self._source = Samples(np.int16, self.need(start))

    def need(self, position: int) -> int:
        """The first source sample that resampling from 16 kHz position ``position`` on needs."""
        return max(0, position // BLOCK * self._block - self._side)

    @property
    def position(self) -> int:
        """The 16 kHz position of the next sample that comes out."""
        return self._next * BLOCK

    @property
    def end(self) -> int:
        """The source position after the last sample that went in."""
        return self._source.end

    def held(self, start: int, end: int) -> Pcm:
        """Source samples ``[start, end)``, as far as they are still here."""
        return self._source.slice(start, end).copy()

    def feed(self, pcm: Pcm, first: int) -> Audio:
        """Take source samples from ``first`` on, skip known ones, and return whole blocks at 16 kHz."""
        if first < self.end:
            pcm = pcm[self.end - first :]
        self._source.append(pcm)
        ready = (self.end - self._side) // self._block - self._next
        if ready <= 0:
            return np.zeros(0, np.float32)
        if not self._side:
            return self._same(ready)
        return np.concatenate([self._one() for _ in range(ready)])

    def flush(self) -> Audio:
        """Return the rest at 16 kHz, as if silence followed."""
        rest = self.end - self._next * self._block
        if rest <= 0:
            return np.zeros(0, np.float32)
        end = self.end
        out = self.feed(np.zeros(self._block + self._side, np.int16), end)
        self._source.cut(end)
        return out

    def forget(self, before: int) -> None:
        """Drop source samples before ``before``, but never what the next block needs."""
        self._source.drop(min(before, self.need(self.position)))

    def _same(self, blocks: int) -> Audio:
        """``blocks`` blocks of a source that is already at 16 kHz."""
        first = self._next * self._block
        self._next += blocks
        return self._source.slice(first, first + blocks * self._block).astype(np.float32) / np.float32(32768)

    def _one(self) -> Audio:
        first = self._next * self._block
        self._next += 1
        start, end = first - self._side, first + self._block + self._side
        left = np.zeros(max(0, -start), np.int16)
        piece = np.concatenate([left, self._source.slice(max(0, start), end)])
        audio = piece.astype(np.float32) / np.float32(32768)
        done = np.asarray(soxr.resample(audio, self.rate, SAMPLE_RATE), np.float32)
        return done[_SIDE : _SIDE + BLOCK]
