"""Whatever bytes a batch has, reading it gives records, never an error: its own, or one that stands for what was not read."""

import gzip
import random
import struct
from typing import Any

import pytest
from aiokafka.errors import CorruptRecordException
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder

from kaption.adapters.kafka.record_batches import MOST_BYTES, MOST_HEADERS, MOST_RECORDS, Batches, decompress
from kaption_schemas.codec.letters import UNDECODABLE
from tests.support import batches
from tests.support.batches import CODECS, Headers, signed, with_codec

BASE = 100


def batch(values: list[bytes], codec: int = 0, headers: Headers | None = None, base: int = BASE) -> bytearray:
    return batches.batch(values, codec, headers, base=base)


def read(*batches: bytes | bytearray) -> list[Any]:
    """Every record, as aiokafka's fetcher goes about it; offsets never go back."""
    records, out = Batches(b"".join(map(bytes, batches))), []
    position = 0
    while records.has_next():
        one = records.next_batch()
        assert one is not None
        assert one.validate_crc()
        if one.is_control_batch:
            position = one.next_offset
            continue
        for record in one:
            assert record.offset >= position
            out.append(record)
            position = record.offset + 1
        assert one.next_offset >= position or one.asks_again
        position = one.next_offset
    return out


def faults(records: list[Any]) -> list[tuple[int, int]]:
    """First and last offset of each record that stands for a batch."""
    return [(int(r.headers[0][1]), r.offset) for r in records if r.headers and r.headers[0][0] == UNDECODABLE]


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_every_codec_is_read(codec: int) -> None:
    values = [bytes(1000), b"", random.Random(1).randbytes(5000)]
    records = read(batch(values, codec, [("a", b"1"), ("b", None)]))
    assert [(r.offset, r.value) for r in records] == list(enumerate(values, BASE))
    assert records[0].headers == [("a", b"1"), ("b", None)]
    assert (records[0].key, records[0].timestamp) == (b"k", 1000)


@pytest.mark.parametrize("codec", [number for number in CODECS.values() if number], ids=[*CODECS][1:])
def test_a_bomb_is_not_unpacked(codec: int) -> None:
    fits = batch([bytes(MOST_BYTES - 100)], codec)
    bomb = batch([bytes(MOST_BYTES), b"beside"], codec)
    assert len(bomb) < MOST_BYTES / 15
    assert not faults(read(fits))
    records = read(bomb, batch([b"behind"], base=BASE + 2))
    assert faults(records) == [(BASE, BASE + 1)]
    assert [r.value for r in records] == [bytes(bomb), b"behind"]
    with pytest.raises(Exception):  # noqa: B017, PT011  # of the decompressor's own choice
        decompress(codec, bytes(bomb[61:]), MOST_BYTES)


def test_a_batch_of_a_million_empty_records_is_one_letter() -> None:
    assert len(read(batch([b""] * MOST_RECORDS))) == MOST_RECORDS
    assert faults(read(batch([b""] * (MOST_RECORDS + 1), 1))) == [(BASE, BASE + MOST_RECORDS)]


def test_a_record_of_a_million_headers_is_one_letter() -> None:
    """Compressed they are a kilobyte."""
    many: Headers = [("", None)]
    assert len(read(batch([b"x"], 4, many * MOST_HEADERS))[0].headers) == MOST_HEADERS
    assert faults(read(batch([b"x"], 4, many * (MOST_HEADERS + 1)))) == [(BASE, BASE)]


def test_what_gzip_takes_grows_with_the_bytes_alone() -> None:
    """Streams that hold nothing, one behind the other, would take a second and more a batch."""
    assert decompress(1, gzip.compress(b"one") + gzip.compress(b"two")) == b"onetwo"
    with pytest.raises(CorruptRecordException):
        decompress(1, gzip.compress(b"") * 50_000)


def test_a_name_that_is_no_utf8_comes_with_the_records_around_it() -> None:
    data = batch([b"one", b"two"], 0, [("name", b"1")])
    second = data.rindex(b"name")
    data[second : second + 4] = b"\xff\xfe\xff\xfe"
    records = read(signed(data))
    assert [r.value for r in records] == [b"one", b"two"]
    assert [r.headers[0][0] for r in records] == ["name", "\ufffd" * 4]


def test_an_unknown_codec_is_named_by_its_offsets() -> None:
    data = with_codec(batch([b"one", b"two", b"three"]), 7)
    assert faults(read(data)) == [(BASE, BASE + 2)]


def test_what_could_be_read_of_a_batch_comes_first() -> None:
    data = batch([b"one", b"two", b"three"])
    at = data.rindex(b"three")
    data[at - 1] = 0x7F  # the value's length
    records = read(signed(data))
    assert [r.value for r in records[:2]] == [b"one", b"two"]
    assert faults(records) == [(BASE + 2, BASE + 2)]


@pytest.mark.parametrize("delta", [-1, 5, 2**31 - 1])
def test_an_offset_that_is_not_the_batchs_moves_no_reader(delta: int) -> None:
    good = batch([b"a"])
    # length, attributes, timestamp, offset: each one byte here; another offset delta takes more.
    body, number = bytearray(good[61:]), bytearray()
    zigzag = (delta << 1) ^ (delta >> 63)
    zigzag &= (1 << 64) - 1
    while zigzag > 0x7F:
        number.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    number.append(zigzag)
    body = bytearray([(len(body) - 2 + len(number)) << 1]) + body[1:3] + number + body[4:]
    data = good[:61] + body
    struct.pack_into(">i", data, 8, len(data) - 12)
    records = read(signed(data))
    assert all(BASE <= r.offset <= BASE for r in records)


def test_a_wrong_checksum_is_asked_for_again_once() -> None:
    data = batch([b"one", b"two"])
    data[-1] ^= 1
    ours = Batches(bytes(data))
    (first,) = [ours.next_batch()]
    assert first is not None
    assert first.asks_again
    assert (list(first), first.next_offset, ours.has_next()) == ([], BASE, False)
    records = read(data)
    assert faults(records) == [(BASE, BASE + 1)]
    assert records[0].value == bytes(data)


def test_batches_of_old_clients() -> None:
    """They know no headers, so nothing in them could be used."""
    for magic in (0, 1):
        builder = LegacyRecordBatchBuilder(magic=magic, compression_type=0, batch_size=1 << 20)
        builder.append(0, 1000, b"k", b"old" * 20)
        assert faults(read(bytearray(struct.pack(">q", BASE) + bytes(builder.build())[8:]))) == [(BASE, BASE)]


def test_what_a_broker_cut_off_waits() -> None:
    whole = batch([b"one"])
    assert not any(Batches(bytes(whole[:size])).has_next() for size in range(len(whole)))


def test_any_bytes_are_read_to_their_end() -> None:
    """Valid batches with bytes changed, dropped or made up, each with a checksum that is right: broken on purpose."""
    draw = random.Random(7)
    kinds = [batch([b"v" * 50] * 3, codec, [("h", b"x")]) for codec in CODECS.values()]
    for _ in range(4000):
        data = bytearray(draw.choice(kinds))
        for _ in range(draw.randint(1, 6)):
            data[draw.randrange(16, len(data))] = draw.randrange(256)
        if draw.random() < 0.3:
            del data[draw.randrange(30, len(data)) :]
        struct.pack_into(">i", data, 8, len(data) - 12)
        if len(data) > 25 and draw.random() < 0.9:
            signed(data)
        read(data)
        read(data)
