"""What a hostile tenant sends: batches of records, files and notifications of them, and a call that breaks every rule. By seed."""

import json
import random
import struct
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_plus

import numpy as np

from kaption.adapters.settings import Settings
from kaption.testing.pipeline import Record, frames
from kaption_schemas.headers import Headers, event_headers, pcm_type, sequence
from kaption_schemas.topics import MIB, Type
from tests.support.batches import CODECS, batch, signed, with_codec
from tests.support.media import CONTAINERS, encode, film, tone, video
from tests.support.pool import speech

RUN = f"01K{'0' * 22}9"

TEXTS = ("a@b.c", "4111 1111 1111 1111", "1 ", "\ud800", "[", '"', "\\", "\u0000", "\u202e", "٤", "+1 202 555 0123 ")
FORMATS = (
    "audio/pcm;rate=16000;channels=1;encoding=s16le", "audio/flac", "audio/ogg;rate=48000;channels=2", "audio/wav",
    "audio/pcm;rate=999999;channels=0;encoding=x", "application/json", ";;;=\"", "audio/pcm;rate*0*=1;rate=8000",
)  # fmt: skip


class Hostile:
    """Draws batches, each like a publisher's or like nobody's."""

    def __init__(self, seed: int, *, broken: bool) -> None:
        """``broken``: also batches that are none, which the embedded broker itself does not survive."""
        self.draw = random.Random(seed)
        self.broken = broken
        self.run = RUN

    def text(self, most: int) -> str:
        draw = self.draw
        return draw.choice(TEXTS) * draw.randint(0, draw.choice((3, 100, most)))

    def json(self, depth: int = 0) -> object:
        draw = self.draw
        match draw.randrange(7 if depth < 5 else 4):
            case 0:
                return self.text(3000)
            case 1:
                return draw.choice((None, True, -1, 10**400, 1.5, float("nan")))
            case 2 | 3:
                return draw.choice(("CREDIT_CARD", "en", "split", 16_000, RUN))
            case 4:
                return [self.json(depth + 1) for _ in range(draw.randint(0, 30))]
            case _:
                names = ("options", "metadata", "vocabulary", "redaction", "format", "rate", "language", self.text(40))
                return {draw.choice(names): self.json(depth + 1) for _ in range(draw.randint(0, 12))}

    def body(self) -> bytes | None:
        draw = self.draw
        match draw.randrange(6):
            case 0:
                return draw.choice((None, b"", b"{}", b'{"last_sequence":0}'))
            case 1:
                return draw.randbytes(draw.choice((1, 320, 3200, 60_000)))
            case 2:
                return bytes(draw.choice((640, 3200, 600_000, 3 * MIB)))
            case 3:
                magic = draw.choice((b"fLaC", b"OggS", b"RIFF\xff\xff\xff\xffWAVEfmt ", b"FORM"))
                return magic + draw.randbytes(draw.randint(0, 4000))
            case _:
                return json.dumps(self.json()).encode("utf-8", "surrogatepass")[: 256 << 10]

    def headers(self) -> Headers:
        draw = self.draw
        extra = {"sequence": sequence(draw.randint(0, 50)), "firstsample": str(draw.choice((0, 1600, 10**12, -1)))}
        head = event_headers(
            draw.choice([*Type]), id="1", source="/t", run=draw.choice((self.run, self.run, "x")), extra=extra,
            content_type=draw.choice(FORMATS),
        )  # fmt: skip
        for _ in range(draw.choice((0, 0, 1, 3))):
            name, _ = draw.choice(head)
            head.append((draw.choice((name, "baggage", "x" * 1000)), draw.randbytes(draw.choice((0, 10, 20_000)))))
        if draw.random() < 0.3:
            head.remove(draw.choice(head))
        return head

    def batch(self) -> bytes:
        """One that a broker may refuse. Now and then a run is new, since most are closed by what they hold."""
        draw = self.draw
        if draw.random() < 0.05:
            self.run = run_of(draw)
        values = [self.body() for _ in range(draw.choice((1, 1, 1, 5, 50)))]
        key = draw.choice((b"call", b"", b"..", draw.randbytes(5), b"x" * 200_000))
        data = batch(values, draw.choice([*CODECS.values()]), [*self.headers()], key)
        match draw.randrange(8) if self.broken else 8:
            case 0:
                data = with_codec(data, draw.randrange(8))
            case 1:
                for _ in range(draw.randint(1, 5)):
                    data[draw.randrange(21, len(data))] = draw.randrange(256)
                data = signed(data) if draw.random() < 0.8 else data
            case 2:
                del data[draw.randrange(61, len(data) + 1) :]
                data = signed(data)
            case 3:
                struct.pack_into(">i", data, 57, draw.choice((0, -1, 2**31 - 1)))
                data = signed(data)
            case _:
                pass
        return bytes(data)


def run_of(draw: random.Random) -> str:
    """Another ULID."""
    return f"01K{draw.randrange(10**23):023d}"


def mutated(body: bytes, dice: random.Random) -> bytes:
    """``body`` with some bytes set, cut out, or repeated, most of them in its first 700."""
    out = bytearray(body)
    for _ in range(dice.choice([1, 1, 2, 4, 16])):
        if not out:
            break
        at = dice.randrange(len(out) if dice.random() < 0.4 else min(len(out), 700))
        change = dice.random()
        if change < 0.4:
            out[at] = dice.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif change < 0.7:
            out[at] ^= 1 << dice.randrange(8)
        elif change < 0.8:
            out[at : at + 4] = dice.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0"])
        elif change < 0.9:
            del out[at : at + dice.randrange(1, 40)]
        else:
            out[at:at] = out[dice.randrange(len(out)) :][: dice.randrange(1, 200)]
    return bytes(out)


def media() -> list[bytes]:
    """A short file of every container: three seconds of speech, a tone where the rate is another, films of one and two tracks."""
    said, rate = speech("workshop-1-rms", 3)
    stereo = np.ascontiguousarray(np.hstack([said, said[::-1]]))
    out = []
    for container, codec, hertz in CONTAINERS:
        pcm = {16_000: stereo, 48_000: np.repeat(stereo, 3, axis=0)}.get(hertz, tone(1, hertz, 2))
        out.append(encode(pcm, hertz, container, codec))
    whole = np.repeat(said, 3, axis=0)
    out += [encode(whole, 48_000, "asf", "libmp3lame"), encode(whole, 48_000, "vob", "mp2")]
    out.append(b"#!AMR\n" + (b"\x3c" + random.Random(0).randbytes(31)) * 100)
    return [*out, encode(said, rate), video(sound=True), film("matroska", [whole, tone(1, 48_000)], picture="mpeg4")]


class HostileFiles:
    """Draws files, and records that ask for them: ours and the store's notifications, right and wrong."""

    def __init__(self, seed: int, settings: Settings, tenant: str) -> None:
        self.draw = random.Random(seed)
        self._bodies = media()
        self._bucket, self._tenant = settings.media_bucket, tenant
        self._json = Hostile(seed, broken=False).json

    def file(self) -> tuple[str, bytes]:
        """A key of the tenant's, one of forty, so that files change while they are read; and a file, damaged four times of five."""
        draw = self.draw
        body = draw.choice(self._bodies)
        if draw.random() < 0.8:
            body = mutated(body, draw)
        if draw.random() < 0.1:
            body = body[: draw.randrange(len(body) + 1)]
        return f"{self._tenant}/fuzz {draw.randrange(40)}+ü.bin", body

    def notification(self, key: str | None = None) -> tuple[bytes, bytes, Headers]:
        """Key, value and headers of a record for ``key``, else for any key at all; one of three is not as it should be."""
        draw, stream = self.draw, b"film-%d" % self.draw.randrange(5)
        place = key or draw.choice(
            (f"{self._tenant}/fuzz 1+ü.bin", "globex/call.wav", "../x", "", "\ud800", "x" * 2000)
        )
        what: dict[str, Any] = {"bucket": self._bucket, "key": place}
        run, ours = run_of(draw), draw.random() < 0.5
        if ours:
            if draw.random() < 0.4:
                what |= {draw.choice(("options", "muted", "track", "size", "etag", "sha256", "version")): self._odd()}
            body: Any = what
        else:
            one: dict[str, Any] = {"key": quote_plus(place, errors="replace"), "sequencer": run}
            if draw.random() < 0.4:
                one[draw.choice(("eTag", "versionId", "size", "sequencer", "key"))] = self._odd()
            event = draw.choice(("s3:ObjectCreated:Put",) * 5 + ("ObjectRemoved:Delete", "s3:TestEvent"))
            entry = {"eventName": event, "s3": {"bucket": {"name": self._bucket}, "object": one}}
            body = {"Records": [entry] * draw.choice((1, 1, 1, 1, 0, 3))}
        value = json.dumps(body).encode("utf-8", "surrogatepass")
        if draw.random() < 0.1:
            value = mutated(value, draw)
        headers = event_headers(Type.OBJECT, id=run, source="/t", run=run) if ours else []
        return stream, value, headers

    def _odd(self) -> object:
        draw = self.draw
        return draw.choice((
            {"channels": "split"}, {"language": "de", "task": "translate"}, {"vocabulary": ["[", "\u202e"]}, [[0, 500], [400, 9]],
            [[1, 2]] * 1000, 0, 1, -1, 10**30, "0" * 64, "x" * 900, None, self._json(),
        ))  # fmt: skip


def broken_call(draw: random.Random) -> Iterator[Record]:
    """A call of real speech without end, in runs of up to half a minute: one frame in four is damaged, lost, late or there twice."""
    while True:
        run, stream = run_of(draw), f"broken-{draw.randrange(3)}"
        pcm, rate = speech("workshop-4-joe", 60)
        if draw.random() < 0.5:
            pcm = np.ascontiguousarray(np.hstack([pcm, pcm[::-1]]))
        records = frames(stream, run, pcm, rate)[draw.randrange(20) :]
        yield from _started(draw, stream, run)
        late: list[Record] = []
        for record in records[: draw.randrange(20, 200)]:
            yield from _spoilt(draw, record, late)
        yield from late
        if draw.random() < 0.7:
            yield records[-1]


def _started(draw: random.Random, stream: str, run: str) -> Iterator[Record]:
    options: Any = draw.choice((
        {}, {"channels": "split"}, {"language": "de"}, {"redaction": []}, {"redaction": ["PERSON"]}, {"vocabulary": ["harbour"] * 150},
        {"task": "translate"}, {"language": "xx"}, {"replaces": RUN}, {"metadata": {"a": "4111 1111 1111 1111"}},
    ))  # fmt: skip
    body = json.dumps({"options": options}).encode()
    if draw.random() < 0.7:
        yield stream.encode(), body, event_headers(Type.STARTED, id=run, source="/t", run=run)


def _spoilt(draw: random.Random, record: Record, late: list[Record]) -> Iterator[Record]:
    key, value, headers = record
    match draw.randrange(28):
        case 0:
            return
        case 1:
            late.append(record)
            return
        case 2:
            yield from (record, record)
        case 3:
            yield key, mutated(value or b"", draw), headers
        case 4:
            name, _ = draw.choice(headers)
            other = draw.choice(
                (sequence(draw.randrange(300)), str(draw.randrange(10**7)), pcm_type(8000, 2), "", "x" * 300)
            )
            yield key, value, [*((n, v) for n, v in headers if n != name), (name, other.encode())]
        case 5:
            yield key, value, [*headers, ("ce_mute", draw.choice((b"0-9", b"9-0", b"1-2," * 70, b"0-1600")))]
        case 6:
            yield from ((key, value, headers), *late)
            late.clear()
        case _:
            yield record
