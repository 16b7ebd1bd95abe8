"""Records whose header names are no UTF-8: any Kafka client can write one, and aiokafka then reads nothing behind it.

Its parser raises in the middle of a batch, at every poll again, so that one record stops a partition for ever. Here such
a batch is parsed a second time by aiokafka's own pure Python parser, with U+FFFD in place of what is no UTF-8; ``validate``
refuses the record. aiokafka and Faust make their fetchers themselves, hence the class is replaced in the fetcher's module.
"""

import struct
from collections.abc import Iterator
from typing import Any
from typing import Final as Const

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

#: A batch is its base offset (8 bytes), its length (4) and that many bytes more.
_HEAD: Const = struct.Struct(">qi")


class _Name(bytearray):
    """A piece of a record that is decoded only where it is a header's name."""

    def decode(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        return super().decode(encoding, errors)


class _Buffer(bytearray):
    """A batch's bytes, whose slices decode whatever they hold."""

    def __getitem__(self, index: Any) -> Any:
        part = super().__getitem__(index)
        return _Name(part) if isinstance(index, slice) else part


class _LenientBatch(_DefaultRecordBatchPy):  # type: ignore[misc]  # aiokafka ships no types
    _buffer: Any

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer = _Buffer(self._buffer)


class _Batch:
    """A batch as aiokafka parses it, and its records in any case."""

    def __init__(self, batch: Any, data: bytes) -> None:
        self._batch = batch
        self._data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        last = -1
        try:
            for record in self._batch:
                last = record.offset
                yield record
        except UnicodeDecodeError:
            yield from (record for record in _LenientBatch(self._slice()) if record.offset > last)

    def _slice(self) -> bytes:
        """The bytes of this batch among those that were fetched."""
        at = 0
        while True:
            base, length = _HEAD.unpack_from(self._data, at)
            if base == self._batch.base_offset:
                return self._data[at : at + _HEAD.size + length]
            at += _HEAD.size + length


class LenientRecords:
    """Stands for aiokafka's ``MemoryRecords``: what a fetch of one partition brought, batch by batch."""

    def __init__(self, data: bytes) -> None:
        self._records = MemoryRecords(data)
        self._data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._records, name)

    def next_batch(self) -> _Batch | None:
        """The next batch, or None at the end."""
        batch = self._records.next_batch()
        return None if batch is None else _Batch(batch, self._data)


def read_any_header_name() -> None:
    """Let every consumer of this process read such records; a second call changes nothing."""
    fetcher.MemoryRecords = LenientRecords
