"""Record batches of strangers: what one holds, or one record that says it can't be read.

aiokafka raises on a batch that it can't parse, at every poll again, so that one record of one publisher stops a partition
for ever, and the process with it: header names that are no UTF-8, a codec that nobody knows, a wrong checksum, garbage, or
offsets that are not the batch's. And it decompresses whatever comes: a kilobyte may become a megabyte (HAZARDS, aiokafka 8).
Here

- a batch is decompressed into at most ``MOST_BYTES``, and has at most ``MOST_RECORDS`` records;
- header names hold U+FFFD in place of what is no UTF-8; ``validate`` refuses the record;
- of a batch that can't be read, what was not read yet comes as one record at the batch's last offset. Its first header is
  ``kaption.domain.events.UNDECODABLE``, a name that no client can write, and its value the batch's bytes.

aiokafka and Faust make their fetchers themselves, hence the class is replaced in the fetcher's module. It serves the
consumers of Kaption alone: who uses the library beside consumers of his own keeps aiokafka's for those.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any
from typing import Final as Const

import cramjam
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchPy, _DefaultRecordPy
from aiokafka.record.legacy_records import LegacyRecordBatch
from aiokafka.record.memory_records import MemoryRecords

from kaption.domain.events import UNDECODABLE
from kaption_schemas.topics import MIB

#: What a batch may hold decompressed: eight times the largest that a publisher's topic takes as it travels.
MOST_BYTES: Const = 8 * MIB
#: What fills ``MOST_BYTES`` with the smallest frames. Without a bound a batch of empty records makes a million dead letters.
MOST_RECORDS: Const = 20_000

#: Set by the fetcher's task of a consumer that is Kaption's (``fetching``).
OURS: ContextVar[bool] = ContextVar("OURS", default=False)

#: A batch is its base offset (8 bytes), its length (4) and that many bytes more.
_HEAD: Const = struct.Struct(">qi")
_MAGIC_AT: Const = 16
_ATTRIBUTES: Const = struct.Struct(">h")
_ATTRIBUTES_AT: Const = 21
_LAST_DELTA: Const = struct.Struct(">i")
_LAST_DELTA_AT: Const = 23
_MAX_TIMESTAMP: Const = struct.Struct(">q")
_MAX_TIMESTAMP_AT: Const = 35
_COUNT: Const = struct.Struct(">i")
_COUNT_AT: Const = 57
_V2_BYTES: Const = 61
_CODEC: Const = 0x07
_GZIP, _SNAPPY, _LZ4, _ZSTD = 1, 2, 3, 4
#: Bytes in front of snappy's blocks, as the Java client and most others frame them; then come two version numbers.
_XERIAL: Const = b"\x82SNAPPY\0"
_XERIAL_BYTES: Const = 16
#: Checksums that were wrong once, and how many of them are remembered.
_suspects: Const[dict[tuple[int, int], None]] = {}
_SUSPECTS: Const = 64


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
    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._buffer: Any = _Buffer(self._buffer)


class _Batch:
    """One batch as the fetcher wants it: iterating gives its records, whatever it holds, and never raises."""

    producer_id: int | None = None
    is_control_batch = False
    is_transactional = False

    def __init__(self, raw: memoryview) -> None:
        self._raw = raw
        self.base_offset: int = _HEAD.unpack_from(raw)[0]
        self.next_offset = self.base_offset + 1
        self.asks_again = False
        self._fault: Exception | None = None
        self._parsed: Any = None
        try:
            self._parse()
        except (CorruptRecordException, struct.error, AssertionError, ValueError, IndexError) as error:
            self._fault = error

    def _parse(self) -> None:
        raw = self._raw
        magic = raw[_MAGIC_AT]
        if magic < 2:
            self._parsed = LegacyRecordBatch(raw, magic)
        elif len(raw) < _V2_BYTES:
            raise CorruptRecordException("shorter than a batch's header")
        else:
            self._parsed = DefaultRecordBatch(raw)
            self.next_offset += max(_LAST_DELTA.unpack_from(raw, _LAST_DELTA_AT)[0], 0)
        if not self._parsed.validate_crc():
            self._suspect()
            return
        self.is_control_batch = self._parsed.is_control_batch
        self.is_transactional = self._parsed.is_transactional
        self.producer_id = self._parsed.producer_id

    def _suspect(self) -> None:
        """The checksum is wrong: on the way here, and then the same bytes come right when asked for again; or in the log."""
        mark = (self.base_offset, zlib.crc32(self._raw))
        if mark in _suspects:
            self._fault = CorruptRecordException("the checksum is wrong")
            return
        _suspects[mark] = None
        while len(_suspects) > _SUSPECTS:
            del _suspects[next(iter(_suspects))]
        self.asks_again = True
        self.next_offset = self.base_offset

    def validate_crc(self) -> bool:
        """True; what is wrong with the checksum was seen already."""
        return True

    def __next__(self) -> Any:
        return next(self._parsed)

    def __iter__(self) -> Iterator[Any]:
        if self.asks_again:
            return
        last = self.base_offset - 1
        for read in (self._strictly, self._leniently):
            try:
                for record in read():
                    if record.offset <= last:
                        continue
                    if record.offset >= self.next_offset:
                        raise CorruptRecordException("an offset that is not the batch's")
                    last = record.offset
                    yield record
            except UnicodeDecodeError:
                continue  # a header's name: once more, leniently
            except Exception as error:  # noqa: BLE001  # whatever a parser makes of a stranger's bytes
                self._fault = error
                yield self._undecodable(last + 1)
            return

    def _strictly(self) -> Iterator[Any]:
        if self._fault is not None:
            raise self._fault
        raw = self._raw
        if raw[_MAGIC_AT] < 2:
            if raw[_MAGIC_AT + 1] & _CODEC:
                # No headers travel in this format, so nothing in it could be used anyway.
                raise CorruptRecordException("compressed in a format of before 2017")
            return iter(self._parsed)
        if _COUNT.unpack_from(raw, _COUNT_AT)[0] > MOST_RECORDS:
            raise CorruptRecordException(f"more than {MOST_RECORDS} records")
        return iter(DefaultRecordBatch(self._plain()) if self._codec else self._parsed)

    def _leniently(self) -> Iterator[Any]:
        return iter(_LenientBatch(self._plain()))

    def _plain(self) -> bytes:
        """The batch without compression. Raises what the decompressor raises, or ``CorruptRecordException``."""
        raw, codec = self._raw, self._codec
        if not codec:
            return bytes(raw)
        head = bytearray(raw[:_V2_BYTES])
        _ATTRIBUTES.pack_into(head, _ATTRIBUTES_AT, _ATTRIBUTES.unpack_from(raw, _ATTRIBUTES_AT)[0] & ~_CODEC)
        return bytes(head) + decompress(codec, bytes(raw[_V2_BYTES:]))

    @property
    def _codec(self) -> int:
        return int(_ATTRIBUTES.unpack_from(self._raw, _ATTRIBUTES_AT)[0] & _CODEC)

    def _undecodable(self, first: int) -> Any:
        """The record that stands for offsets ``first`` up to the batch's last."""
        raw = self._raw
        timestamp = _MAX_TIMESTAMP.unpack_from(raw, _MAX_TIMESTAMP_AT)[0] if len(raw) >= _V2_BYTES else 0
        headers = [(UNDECODABLE, str(first).encode())]
        return _DefaultRecordPy(self.next_offset - 1, max(timestamp, 0), 0, None, bytes(raw), headers)


def decompress(codec: int, data: bytes, most: int = MOST_BYTES) -> bytes:
    """``data`` as it was before ``codec`` (a number of Kafka's). Raises when that is no such data, or more than ``most`` bytes."""
    if codec == _GZIP:
        return _gunzip(data, most)
    if codec == _SNAPPY:
        return _unsnappy(data, most)
    if codec == _LZ4:
        return _into(cramjam.lz4.decompress_into, data, most)
    if codec == _ZSTD:
        return _into(cramjam.zstd.decompress_into, data, most)
    raise CorruptRecordException(f"codec {codec} is unknown")


def _into(work: Callable[[bytes, bytearray], int], data: bytes, most: int) -> bytes:
    out = bytearray(most)
    size = work(data, out)
    return bytes(memoryview(out)[:size])


def _gunzip(data: bytes, most: int) -> bytes:
    out = bytearray()
    while data:  # members may stand one behind the other
        member = zlib.decompressobj(wbits=31)
        out += member.decompress(data, most + 1 - len(out))
        if len(out) > most:
            raise CorruptRecordException(f"more than {most} bytes")
        if not member.eof:
            raise CorruptRecordException("the data ends too early")
        data = member.unused_data
    return bytes(out)


def _unsnappy(data: bytes, most: int) -> bytes:
    if not data.startswith(_XERIAL):
        return _block(data, most)
    out, at = bytearray(), _XERIAL_BYTES
    while at < len(data):
        (length,) = _COUNT.unpack_from(data, at)
        at += _COUNT.size
        if not 0 <= length <= len(data) - at:
            raise CorruptRecordException("a block ends behind the data")
        out += _block(data[at : at + length], most - len(out))
        at += length
    return bytes(out)


def _block(data: bytes, most: int) -> bytes:
    if cramjam.snappy.decompress_raw_len(data) > most:
        raise CorruptRecordException(f"more than {most} bytes")
    return bytes(cramjam.snappy.decompress_raw(data))


class LenientRecords:
    """Stands for aiokafka's ``MemoryRecords``: what a fetch of one partition brought, batch by batch."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0

    def size_in_bytes(self) -> int:
        """Bytes in all."""
        return len(self._data)

    def has_next(self) -> bool:
        """Whether another whole batch follows; a broker cuts the last one where the answer is full."""
        if len(self._data) - self._at < _HEAD.size:
            return False
        length = _HEAD.unpack_from(self._data, self._at)[1]
        # Its magic number, at the least: below that it can't be told what it is.
        return bool(_MAGIC_AT + 2 - _HEAD.size <= length <= len(self._data) - self._at - _HEAD.size)

    def next_batch(self) -> _Batch | None:
        """The next batch, or None at the end."""
        if not self.has_next():
            return None
        end = self._at + _HEAD.size + _HEAD.unpack_from(self._data, self._at)[1]
        batch = _Batch(self._data[self._at : end])
        # What is to be asked for again ends this answer: the fetcher goes on from there.
        self._at = len(self._data) if batch.asks_again else end
        return batch


def _records(data: bytes) -> Any:
    return LenientRecords(data) if OURS.get() else MemoryRecords(data)


def read_any_batch() -> None:
    """Let every consumer of Kaption in this process read such batches; a second call changes nothing."""
    fetcher.MemoryRecords = _records
