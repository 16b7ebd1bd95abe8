"""Parses untrusted record batches. A batch that can't be read becomes one record that says so.

aiokafka raises on a batch that it can't parse, and raises again at every poll. So one record of one publisher stops a
partition without end, and the process with it. Such records have header names that are not UTF-8, an unknown codec or a
wrong checksum. If a length points outside the batch, aiokafka's parsers read foreign memory, and the process may crash.
aiokafka also decompresses without a limit: a kilobyte may become a megabyte (HAZARDS, aiokafka 8 and 11). This parser
has these rules:

- A batch is decompressed into at most ``MOST_BYTES``. It has at most ``MOST_RECORDS`` records with ``MOST_HEADERS`` headers each.
- Header names hold U+FFFD in place of bytes that are not UTF-8; ``validate`` refuses the record.
- If a batch can't be read, the unread rest becomes one record at the batch's last offset. Its first header is
  ``kaption_schemas.codec.letters.UNDECODABLE``, a name that no client can write. Its value is the batch's bytes.

Kaption's consumers use this parser (``clients.Consumer``). Other consumers in the process keep aiokafka's.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Final as Const
from typing import NamedTuple

import cramjam
from aiokafka.errors import CorruptRecordException
from aiokafka.record.util import calc_crc32c

from kaption_schemas.codec import undecodable_headers
from kaption_schemas.topics import MIB

#: Largest decompressed batch, in bytes: eight times the largest batch that a publisher's topic accepts.
MOST_BYTES: Const = 8 * MIB
#: Number of the smallest frames that fill ``MOST_BYTES``. Without a bound, a batch of empty records makes a million dead letters.
MOST_RECORDS: Const = 20_000
#: Headers of one record. A valid record has at most 64. A few hundred bytes of a batch may hold millions of headers, and
#: parsing those takes seconds and 300 MB.
MOST_HEADERS: Const = 1000
#: Consecutive gzip streams in a batch. Clients write one. Each takes about 20 bytes and costs 20 us.
_MOST_MEMBERS: Const = 100

#: A batch has its base offset (8 bytes), its length (4 bytes), and then that number of bytes.
_HEAD: Const = struct.Struct(">qi")
#: The rest of the batch header (https://kafka.apache.org/documentation/#recordbatch): leader epoch, magic, checksum of the
#: bytes after it, attributes, last offset delta, first and last timestamp, producer id, epoch and sequence, record count.
_REST: Const = struct.Struct(">ibIhiqqqhii")
_FIRST_RECORD: Const = _HEAD.size + _REST.size
_SIGNED_FROM: Const = 21
_MAGIC: Const = 2
_CODEC, _APPEND_TIME, _TRANSACTIONAL, _CONTROL = 0x07, 0x08, 0x10, 0x20
_GZIP, _SNAPPY, _LZ4, _ZSTD = 1, 2, 3, 4
#: Magic bytes before snappy's blocks in the framing of the Java client and most others. Two version numbers follow.
_XERIAL: Const = b"\x82SNAPPY\0"
_XERIAL_BYTES: Const = 16
_LENGTH: Const = struct.Struct(">i")
#: First size of the output buffer for lz4 and zstd: a number of bytes, and a multiple of the compressed size.
_LEAST_ROOM: Const = 1 << 16
_USUAL_RATIO: Const = 8
#: Batches with a checksum that was wrong once: base offset and the checksum found. The oldest entry is dropped.
_suspects: Const[dict[tuple[int, int], None]] = {}
_SUSPECTS: Const = 64


class Record(NamedTuple):
    """One record, as aiokafka's fetcher wants it."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    checksum: None = None


class Batch:
    """One batch in the form that aiokafka's fetcher needs. Iterating gives records for any content, and never raises.

    ``asks_again``: the checksum was wrong for the first time, so the fetcher must fetch the batch once more.
    """

    def __init__(self, raw: memoryview) -> None:
        self._raw = raw
        self._fault = ""
        self.asks_again = False
        self.base_offset: int = _HEAD.unpack_from(raw)[0]
        self.next_offset = self.base_offset + 1
        self.producer_id: int | None = None
        self._attributes = self._count = self._first_ms = self._last_ms = 0
        if len(raw) < _FIRST_RECORD:
            self._fault = "shorter than a batch's head"
            return
        (
            _, magic, checksum, attributes, last, self._first_ms, self._last_ms, producer, _, _, self._count,
        ) = _REST.unpack_from(raw, _HEAD.size)  # fmt: skip
        if magic != _MAGIC:
            # The format from before 2017 has no headers, so Kaption could not use its records.
            self._fault = f"format {magic}"
            return
        self.next_offset += max(last, 0)
        if checksum != calc_crc32c(raw[_SIGNED_FROM:]):
            self._suspect()
        elif self._count > MOST_RECORDS:
            self._fault = f"more than {MOST_RECORDS} records"
        else:
            self._attributes, self.producer_id = attributes, producer

    def _suspect(self) -> None:
        """Handle a wrong checksum. If the network damaged the batch, a second fetch gets the right bytes; otherwise the log is damaged."""
        mark = (self.base_offset, zlib.crc32(self._raw))
        if mark in _suspects:
            self._fault = "the checksum is wrong"
            return
        _suspects[mark] = None
        if len(_suspects) > _SUSPECTS:
            del _suspects[next(iter(_suspects))]
        self.asks_again = True
        self.next_offset = self.base_offset

    @property
    def is_control_batch(self) -> bool:
        """Whether it holds a transaction's marker."""
        return bool(self._attributes & _CONTROL)

    @property
    def is_transactional(self) -> bool:
        """Whether it belongs to a transaction."""
        return bool(self._attributes & _TRANSACTIONAL)

    def validate_crc(self) -> bool:
        """True: the constructor has already checked the checksum."""
        return True

    def __next__(self) -> Record:
        return next(iter(self))

    def __iter__(self) -> Iterator[Record]:
        if self.asks_again:
            return
        last = self.base_offset - 1
        try:
            for record in self._records():
                if not last < record.offset < self.next_offset:
                    raise CorruptRecordException("an offset that is not the batch's")
                last = record.offset
                yield record
        except Exception:  # noqa: BLE001  # a decompressor may raise anything on untrusted bytes
            if last + 1 == self.next_offset:
                return  # every offset has its record; bytes after them belong to none
            mark = undecodable_headers(last + 1)
            yield Record(self.next_offset - 1, max(self._last_ms, 0), 0, None, bytes(self._raw), mark)

    def _records(self) -> Iterator[Record]:
        if self._fault:
            raise CorruptRecordException(self._fault)
        codec, data, at = self._attributes & _CODEC, bytes(self._raw[_FIRST_RECORD:]), 0
        if codec:
            data = decompress(codec, data)
        for _ in range(self._count):
            record, at = self._read(data, at)
            yield record
        if at != len(data):
            raise CorruptRecordException("more bytes than records")

    def _read(self, data: bytes, at: int) -> tuple[Record, int]:
        """The record at ``at``, and where the next begins. Raises ``IndexError`` or ``CorruptRecordException``."""
        length, at = _varint(data, at)
        end = at + length
        if length < 0 or end > len(data):
            raise CorruptRecordException("a record ends behind its batch")
        milliseconds, at = _varint(data, at + 1)  # after the attributes, which have no meaning yet
        distance, at = _varint(data, at)
        key, at = _piece(data, at, end)
        value, at = _piece(data, at, end)
        count, at = _varint(data, at)
        if not 0 <= count <= end - at:
            raise CorruptRecordException("more headers than bytes")
        if count > MOST_HEADERS:
            raise CorruptRecordException(f"more than {MOST_HEADERS} headers")
        headers: list[tuple[str, bytes | None]] = []
        for _ in range(count):
            name, at = _piece(data, at, end)
            content, at = _piece(data, at, end)
            if name is None:
                raise CorruptRecordException("a header without a name")
            headers.append((name.decode("utf-8", "replace"), content))
        if at != end:
            raise CorruptRecordException("a record of another length than it says")
        appended = self._attributes & _APPEND_TIME
        timestamp = self._last_ms if appended else self._first_ms + milliseconds
        return Record(self.base_offset + distance, timestamp, 1 if appended else 0, key, value, headers), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A zigzag varint of protocol buffers, and the position after it. ``at`` is not negative."""
    byte = data[at]
    at += 1
    if byte < 0x80:
        return (byte >> 1) ^ -(byte & 1), at
    number, shift = byte & 0x7F, 7
    while byte >= 0x80:
        if shift > 63:
            raise CorruptRecordException("a number of more than 64 bits")
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
    return (number >> 1) ^ -(number & 1), at


def _piece(data: bytes, at: int, end: int) -> tuple[bytes | None, int]:
    """Length-prefixed bytes that end before ``end``, and the position after them; the length -1 gives None."""
    if (byte := data[at]) < 0x80 and not byte & 1:  # the common case, 1 to 63 bytes: a batch has many of them
        length, begin = byte >> 1, at + 1
    else:
        length, begin = _varint(data, at)
        if length == -1:
            return None, begin
    stop = begin + length
    if length < 0 or stop > end:
        raise CorruptRecordException("a piece ends behind its record")
    return data[begin:stop], stop


def decompress(codec: int, data: bytes, most: int = MOST_BYTES) -> bytes:
    """Decompress ``data`` with ``codec`` (Kafka's number). Raises if it is not such data, or gives more than ``most`` bytes."""
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
    """Run ``work`` on ``data`` with a buffer that grows as needed: clearing all of ``most`` costs half a millisecond a batch."""
    room = min(most, max(_LEAST_ROOM, _USUAL_RATIO * len(data)))
    while True:
        out = bytearray(room)
        try:
            return bytes(memoryview(out)[: work(data, out)])
        except cramjam.DecompressionError:
            if room == most:
                raise
            room = min(most, 16 * room)


def _gunzip(data: bytes, most: int) -> bytes:
    out = bytearray()
    for _ in range(_MOST_MEMBERS + 1):
        if not data:
            return bytes(out)
        member = zlib.decompressobj(wbits=31)
        out += member.decompress(data, most + 1 - len(out))
        if len(out) > most:
            raise CorruptRecordException(f"more than {most} bytes")
        if not member.eof:
            raise CorruptRecordException("the data ends too early")
        data = member.unused_data
    raise CorruptRecordException(f"more than {_MOST_MEMBERS} streams of gzip")


def _unsnappy(data: bytes, most: int) -> bytes:
    if not data.startswith(_XERIAL):
        return _block(data, most)
    out, at = bytearray(), _XERIAL_BYTES
    while at < len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if not 0 <= length <= len(data) - at:
            raise CorruptRecordException("a block ends behind the data")
        out += _block(data[at : at + length], most - len(out))
        at += length
    return bytes(out)


def _block(data: bytes, most: int) -> bytes:
    if cramjam.snappy.decompress_raw_len(data) > most:
        raise CorruptRecordException(f"more than {most} bytes")
    return bytes(cramjam.snappy.decompress_raw(data))


class Batches:
    """Replaces aiokafka's ``MemoryRecords``: the batches that one fetch of a partition returned."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0

    def size_in_bytes(self) -> int:
        """Bytes in all."""
        return len(self._data)

    def has_next(self) -> bool:
        """Whether another whole batch follows. A broker truncates the last batch when the answer is full."""
        left = len(self._data) - self._at - _HEAD.size
        return left >= 0 and 0 <= _HEAD.unpack_from(self._data, self._at)[1] <= left

    def next_batch(self) -> Batch | None:
        """The next batch, or None at the end."""
        if not self.has_next():
            return None
        end = self._at + _HEAD.size + _HEAD.unpack_from(self._data, self._at)[1]
        batch = Batch(self._data[self._at : end])
        # A batch to fetch again ends this answer: the fetcher goes on from there.
        self._at = len(self._data) if batch.asks_again else end
        return batch
