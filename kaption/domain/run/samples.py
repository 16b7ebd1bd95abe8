"""Holds samples that grow at their end and are dropped from their front, without a copy of what lies between."""

from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

S = TypeVar("S", np.int16, np.float32)
#: Least number of samples to make room for; a quarter of the content if that is more. Dropped samples stay in memory until
#: the array is full.
_ROOM = 1 << 15


class Samples(Generic[S]):
    """Samples ``[start, end)`` of a stream. Slices are views: copy one that must outlive the next call."""

    def __init__(self, dtype: type[S], start: int = 0) -> None:
        self.start = start
        self._data: npt.NDArray[S] = np.zeros(_ROOM, dtype)
        self._first = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def end(self) -> int:
        """The position after the last sample."""
        return self.start + self._size

    def append(self, more: npt.NDArray[S]) -> None:
        """Add samples at ``end``."""
        if self._first + self._size + len(more) > len(self._data):
            self._make_room(len(more))
        at = self._first + self._size
        self._data[at : at + len(more)] = more
        self._size += len(more)

    def slice(self, start: int, end: int) -> npt.NDArray[S]:
        """The samples at positions ``[start, end)``, as far as they are held."""
        first = min(max(start - self.start, 0), self._size)
        last = min(max(end - self.start, first), self._size)
        return self._data[self._first + first : self._first + last]

    def drop(self, before: int) -> None:
        """Forget the samples before position ``before``."""
        gone = min(max(before - self.start, 0), self._size)
        self.start += gone
        self._first += gone
        self._size -= gone

    def cut(self, end: int) -> None:
        """Forget the samples from position ``end`` on."""
        self._size = min(max(end - self.start, 0), self._size)

    def _make_room(self, more: int) -> None:
        """Move the held samples to the front of a new array with spare room."""
        need = self._size + more
        data = np.zeros(need + max(_ROOM, need // 4), self._data.dtype)
        data[: self._size] = self._data[self._first : self._first + self._size]
        self._data, self._first = data, 0
