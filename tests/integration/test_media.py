"""The decoding children, on real files and hostile ones, and what forks them."""

import io
import os
import random
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
import pytest

from kaption.adapters.media.containers import find
from kaption.adapters.media.files import ChildError, Decoding, MediaDecoder, MediaFormat
from kaption.adapters.media.sound import nearest_rate
from kaption.adapters.settings import Settings
from kaption_schemas.errors import RefusedError
from kaption_schemas.reasons import Reason
from tests.support.media import chunk, encode, film, riff, tone, video

Decoded = tuple[MediaFormat, npt.NDArray[np.int16]]


def decode(
    body: bytes, *, mix: bool = True, track: int | None = None, wall: float | None = None, **fields: Any
) -> Decoded:
    with tempfile.TemporaryFile() as file:
        file.write(body)
        with (
            closing(MediaDecoder(Settings(**fields))) as decoder,
            decoder.decode(file, mix=mix, track=track, wall_seconds=wall) as decoding,
        ):
            pcm = bytearray()
            while block := decoding.read(50_000):
                pcm += block
            samples = decoding.finish()
            assert len(pcm) == samples * decoding.format.width
            return decoding.format, np.frombuffer(pcm, "<i2").reshape(-1, decoding.format.channels)


def refused(body: bytes, *, mix: bool = True, wall: float | None = None, **fields: Any) -> Reason:
    with pytest.raises(RefusedError) as caught:
        decode(body, mix=mix, wall=wall, **fields)
    return caught.value.reason


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        ("wav", "pcm_s16le", 16_000), ("wav", "pcm_mulaw", 8_000), ("flac", "flac", 44_100), ("ogg", "libopus", 48_000),
        ("mp3", "libmp3lame", 44_100), ("mp4", "aac", 48_000), ("webm", "libopus", 48_000), ("adts", "aac", 44_100),
        ("aiff", "pcm_s16be", 16_000), ("mpegts", "aac", 48_000), ("mov", "alac", 44_100), ("au", "pcm_s16be", 8_000),
        ("caf", "pcm_s16be", 22_050), ("avi", "pcm_s16le", 16_000), ("flv", "aac", 44_100),
    ],
)  # fmt: skip
def test_every_container_gives_its_audio_at_its_rate(container: str, codec: str, rate: int) -> None:
    form, pcm = decode(encode(tone(2, rate, 2), rate, container, codec), mix=False)
    assert form == MediaFormat(rate, 2)
    assert 2 <= len(pcm) / rate < 2.1
    assert 6500 < np.abs(pcm[rate // 2 : rate, 0]).max() < 10_500
    assert np.abs(pcm[rate // 2 : rate, 1]).max() < 5500


def test_wav_is_bit_exact() -> None:
    sound = tone(1.5, 11_025, 2)
    assert np.array_equal(decode(encode(sound, 11_025), mix=False)[1], sound)


def test_mix_is_one_channel_and_split_at_most_two() -> None:
    stereo = encode(tone(1, channels=2), 16_000)
    assert decode(stereo)[0].channels == 1
    assert decode(stereo, mix=False)[0].channels == 2
    surround = encode(tone(1, channels=6), 16_000)
    assert decode(surround)[0].channels == 1
    assert refused(surround, mix=False) is Reason.UNSUPPORTED_FORMAT


def test_other_rates_go_to_the_nearest_allowed_one() -> None:
    assert [nearest_rate(rate) for rate in (4_000, 16_000, 18_000, 46_000, 96_000)] == [
        8000,
        16_000,
        16_000,
        44_100,
        48_000,
    ]
    form, pcm = decode(encode(tone(1, 96_000), 96_000))
    assert form.rate == 48_000
    assert abs(len(pcm) - 48_000) < 50


def test_a_video_gives_its_sound_and_one_without_has_none() -> None:
    assert 0.4 < len(decode(video(sound=True))[1]) / 16_000 < 0.7
    assert refused(video(sound=False)) is Reason.NO_AUDIO


def test_a_file_without_a_sample_has_no_audio() -> None:
    empty = io.BytesIO()
    with wave.open(empty, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
    assert refused(empty.getvalue()) is Reason.NO_AUDIO


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"This is a text that was renamed to .mp3, and it is no music at all.\n" * 100,
        b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:1/a.ts\n",
        b"ffconcat version 1.0\nfile '/etc/passwd'\n",
        b"<?xml version='1.0'?><MPD><BaseURL>http://127.0.0.1:1/</BaseURL></MPD>",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"ID3\x04\0\0\0\0\0\x10" + b"#EXTM3U\nfile:///etc/passwd\n" * 10,
        b"fLaC" + b"\xff" * 5000,
        b"RIFF\xff\xff\xff\xffWAVEdata\xff\xff\xff\xff",
    ],
    ids=["empty", "text", "m3u8", "m3u8-url", "concat", "dash", "sdp", "png", "id3-m3u8", "flac-noise", "wav-header"],
)
def test_what_is_no_media_is_refused(body: bytes) -> None:
    assert refused(body) is Reason.NOT_MEDIA


def test_a_movie_that_refers_to_another_file_does_not_open_it(tmp_path: Path) -> None:
    secret = tmp_path / "secret.raw"
    secret.write_bytes(tone(1).tobytes())
    body = encode(tone(1), 16_000, "mov", "pcm_s16le")
    alias = b"url " + bytes(4) + f"file://{secret}".encode() + b"\0"  # flags 0: not in this file
    at = body.index(b"dref")
    assert body[at + 12 : at + 20].endswith(b"url ")
    moved = body[: at + 12] + alias + body[at + 12 + len(alias) :]
    assert refused(moved) in {Reason.NOT_MEDIA, Reason.NO_AUDIO, Reason.TRUNCATED, Reason.UNSUPPORTED_FORMAT}


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("wav", "pcm_s16le"), ("flac", "flac"), ("ogg", "libopus"), ("mp3", "libmp3lame"), ("mp4", "aac"),
        ("webm", "libopus"), ("aiff", "pcm_s16be"), ("avi", "pcm_s16le"), ("au", "pcm_s16be"), ("caf", "pcm_s16be"),
    ],
)  # fmt: skip
def test_a_file_that_was_cut_off_is_refused(container: str, codec: str) -> None:
    body = encode(tone(4, 48_000), 48_000, container, codec)
    assert refused(body[: len(body) * 2 // 3]) is Reason.TRUNCATED


def test_hours_of_silence_in_a_small_file_are_refused_without_being_written() -> None:
    silent = encode(np.zeros((600 * 8000, 1), np.int16), 8000, "flac", "flac")
    assert len(silent) < 200_000
    assert refused(silent, object_max_seconds=60) is Reason.TOO_LONG
    honest = silent[:21] + bytes([silent[21] & 0xF0]) + bytes(4) + silent[26:]  # STREAMINFO: length unknown
    assert refused(honest, object_max_seconds=60) is Reason.TOO_LONG
    assert len(decode(silent)[1]) == 600 * 8000


def test_a_decode_that_needs_too_much_is_ended() -> None:
    body = encode(np.zeros((600 * 48_000, 1), np.int16), 48_000, "flac", "flac")
    assert refused(body, wall=0.05) is Reason.DECODE_LIMIT
    assert refused(body, decode_memory_mb=64) is Reason.DECODE_LIMIT
    assert refused(30 * body, decode_cpu_seconds=1) is Reason.DECODE_LIMIT


def test_a_container_that_asks_for_memory_is_ended() -> None:
    """A WebM with a first block of 200 MiB, which must be read whole; and headers that only claim such sizes."""
    sound = encode(tone(1, 48_000), 48_000, "webm", "libopus")
    head = sound[: sound.index(b"\x1fC\xb6u")]
    at = head.index(b"\x18S\x80g") + 4
    unknown = b"\x01" + b"\xff" * 7
    size = 200 << 20
    block = b"\xa3\x01" + size.to_bytes(7) + b"\x81\0\0\x80" + bytes(size - 4)
    bomb = head[:at] + unknown + head[at + 8 :] + b"\x1fC\xb6u" + unknown + b"\xe7\x81\0" + block
    assert refused(bomb, decode_memory_mb=512) is Reason.DECODE_LIMIT
    wav = b"RIFF" + struct.pack("<I", 0xFFFFFFF0) + b"WAVEfmt " + struct.pack("<I", 0xFFFFFF00) + bytes(1000)
    assert refused(wav) is Reason.TRUNCATED


def test_noise_in_the_middle_does_not_move_what_follows() -> None:
    """Muted ranges are times: a packet that can't be decoded leaves silence, and no shift."""
    sound = np.concatenate([tone(3, 44_100), np.zeros((44_100, 1), np.int16), tone(3, 44_100)])
    body = bytearray(encode(sound, 44_100, "mp4", "aac"))
    at = len(body) // 4
    body[at : at + 600] = bytes(range(256)) * 2 + bytes(88)
    pcm = decode(bytes(body))[1][:, 0].astype(int)
    assert abs(len(pcm) - len(sound)) < 4500
    assert np.abs(pcm[round(3.3 * 44_100) : round(3.7 * 44_100)]).max() < 100
    assert np.abs(pcm[round(4.3 * 44_100) : round(4.7 * 44_100)]).max() > 4000


def test_the_first_bytes_decide() -> None:
    def kind(head: bytes) -> str | None:
        found = find(io.BytesIO(head), len(head))
        return None if found is None else found.kind

    assert kind(b"RIFF\0\0\0\0AVI ") == "avi"
    assert kind(b"RIFF\0\0\0\0WEBP") is None
    assert kind(b"\xff\xfb\x90\x64" + bytes(413)) == "mp3"
    assert kind(b"\xff\xfb\x90\x64" + bytes(5000)) is None
    assert kind(b"\xff\xf1\x50\x80\x02\x00\x00" + bytes(9)) == "aac"
    assert kind(b"\xff\xff\xff\xff" * 5) is None
    assert kind(b"ID3\x04\0\0\0\0\0\0fLaC") == "flac"
    assert kind(b"\0\0\0\x18ftypM4A ") == "mov"


@pytest.fixture
def decoder() -> Iterator[MediaDecoder]:
    with closing(MediaDecoder(Settings())) as decoder:
        yield decoder


@contextmanager
def opened(body: bytes) -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile() as file:
        file.write(body)
        yield cast("BinaryIO", file)


@pytest.fixture
def minutes() -> Iterator[BinaryIO]:
    """More than fits the pipe: whoever decodes it waits for whoever reads."""
    with opened(encode(tone(120, 16_000), 16_000)) as file:
        yield file


def forks(decoder: MediaDecoder) -> int:
    assert decoder.pid is not None
    return decoder.pid


def children(decoder: MediaDecoder) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{decoder.pid}/task/{decoder.pid}/children").read_text().split()]


def rest_of(decoding: Decoding) -> int:
    samples = 0
    while block := decoding.read(50_000):
        samples += len(block) // decoding.format.width
    return samples


def rest(decoding: Decoding) -> int:
    samples = rest_of(decoding)
    assert decoding.finish() == samples
    return samples


def test_a_child_holds_its_own_file_and_nothing_of_its_siblings(
    decoder: MediaDecoder, minutes: BinaryIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAPTION_S3_SECRET_KEY", "a secret")
    with ExitStack() as stack:
        for _ in range(3):
            file = stack.enter_context(opened(encode(tone(30), 16_000)))
            stack.enter_context(decoder.decode(file, mix=True))
        pids = children(decoder)
        assert len(pids) == 3
        for pid in pids:
            if os.geteuid() == 0:  # it is hidden from everybody else
                held = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
                assert sum(name.startswith("pipe:") for name in held) == 2, held
                assert len([name for name in held if name != "/dev/null"]) == 3, held
                assert Path(f"/proc/{pid}/environ").read_bytes() == b""
            limits = Path(f"/proc/{pid}/limits").read_text()
            for limit in (
                r"address space\s+1073741824",
                r"cpu time\s+900",
                r"open files\s+16",
                r"file size\s+0",
                r"core file size\s+0",
            ):
                assert re.search(limit, limits), limits
    assert children(decoder) == []


def test_decodes_at_once_do_not_mix(decoder: MediaDecoder, minutes: BinaryIO) -> None:
    with (
        opened(encode(tone(1, 8000, 2), 8000)) as other,
        decoder.decode(minutes, mix=True) as long,
        decoder.decode(other, mix=False) as short,
    ):
        assert (long.format, short.format) == (MediaFormat(16_000, 1), MediaFormat(8000, 2))
        assert (rest(short), rest(long)) == (8000, 120 * 16_000)


def test_a_decode_that_is_left_ends_its_child(decoder: MediaDecoder, minutes: BinaryIO) -> None:
    with decoder.decode(minutes, mix=True) as decoding:
        decoding.read(1000)
        (pid,) = children(decoder)
    assert not Path(f"/proc/{pid}").exists()


def test_a_slow_reader_is_not_the_files_fault(decoder: MediaDecoder, minutes: BinaryIO) -> None:
    """A store takes hours of audio at its own pace, and the child waits for it."""
    with decoder.decode(minutes, mix=True, wall_seconds=2) as decoding:
        first = len(decoding.read(50_000)) // decoding.format.width
        time.sleep(2.5)  # longer than the child may be waited for
        assert first + rest_of(decoding) == decoding.finish() == 120 * 16_000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_for_the_service_refuses_no_file(decoder: MediaDecoder, minutes: BinaryIO, number: int) -> None:
    """A service manager, or a terminal, may send it to all processes: what the file is worth is not for it to say."""
    with decoder.decode(minutes, mix=True) as decoding:
        for pid in (*children(decoder), forks(decoder)):
            os.kill(pid, number)
        assert rest(decoding) == 120 * 16_000


def test_what_forks_children_is_started_again(decoder: MediaDecoder, minutes: BinaryIO) -> None:
    with decoder.decode(minutes, mix=True):
        before = forks(decoder)
    os.kill(before, signal.SIGKILL)
    with decoder.decode(minutes, mix=True) as decoding:
        assert rest(decoding) == 120 * 16_000
    assert forks(decoder) != before


@pytest.mark.parametrize(
    ("crash", "reason"), [(signal.SIGSEGV, Reason.NOT_MEDIA), (signal.SIGABRT, Reason.DECODE_LIMIT)]
)
def test_after_a_crash_nothing_is_forked_from_the_same_process(
    decoder: MediaDecoder, minutes: BinaryIO, crash: int, reason: Reason
) -> None:
    """Its children have the layout of their addresses in common: a second guess must not be at the same."""
    with decoder.decode(minutes, mix=True) as decoding:
        before = forks(decoder)
        (pid,) = children(decoder)
        os.kill(pid, crash)
        with pytest.raises(RefusedError) as caught:
            rest(decoding)
        assert caught.value.reason is reason
    with decoder.decode(minutes, mix=True) as decoding:
        assert forks(decoder) != before
        assert rest(decoding) == 120 * 16_000


def test_a_child_that_is_lost_says_nothing_of_its_file(decoder: MediaDecoder, minutes: BinaryIO) -> None:
    with decoder.decode(minutes, mix=True) as decoding:
        os.kill(forks(decoder), signal.SIGKILL)
        with pytest.raises(ChildError):
            rest(decoding)


def test_a_child_that_gets_no_limits_says_nothing_of_its_file(minutes: BinaryIO) -> None:
    bounded = Settings(decode_memory_mb=1 << 44)  # more bytes than 64 bits can say
    with (
        closing(MediaDecoder(bounded)) as decoder,
        pytest.raises(ChildError),
        decoder.decode(minutes, mix=True),
    ):
        pass


def test_one_that_is_closed_starts_nothing(decoder: MediaDecoder, minutes: BinaryIO) -> None:
    decoder.close()
    with pytest.raises(ChildError), decoder.decode(minutes, mix=True):
        pass
    assert decoder.pid is None


def test_nothing_outlives_a_service_that_is_killed(minutes: BinaryIO) -> None:
    script = """
import os, sys
from kaption.adapters.media.files import MediaDecoder
from kaption.adapters.settings import Settings
decoder = MediaDecoder(Settings())
with decoder.decode(os.fdopen(int(sys.argv[1]), "rb"), mix=True):
    print(decoder.pid, open(f"/proc/{decoder.pid}/task/{decoder.pid}/children").read(), flush=True)
    sys.stdin.read()
"""
    argv = [sys.executable, "-c", script, str(minutes.fileno())]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, pass_fds=(minutes.fileno(),), text=True) as service:
        assert service.stdout is not None
        pids = service.stdout.readline().split()
        assert len(pids) == 2
        service.kill()
    until = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() and _state(pid) != "Z" for pid in pids):
        assert time.monotonic() < until, pids
        time.sleep(0.05)


def _state(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def test_polarity_that_is_swapped_loses_nothing() -> None:
    sound = tone(5, 44_100)
    swapped, alike = (encode(np.hstack([sound, sign * sound]), 44_100) for sign in (-1, 1))
    for body in (swapped, alike):
        form, pcm = decode(body)
        assert form == MediaFormat(44_100, 1)
        assert np.array_equal(pcm, sound)
    assert decode(swapped, mix=False)[0].channels == 2


def test_a_refusal_says_more_than_its_reason() -> None:
    with pytest.raises(RefusedError) as caught:
        decode(encode(tone(4), 16_000)[:64_000])
    assert (caught.value.reason, caught.value.detail) == (Reason.TRUNCATED, "wav: 63922 bytes of 128000")
    with pytest.raises(RefusedError) as caught:
        decode(encode(tone(1, channels=6), 16_000), mix=False)
    assert caught.value.detail == "wav: 6 channels to split"


def test_a_track_is_taken_by_its_number() -> None:
    low, high = tone(2, 48_000, hertz=300), tone(2, 48_000, hertz=900)
    heard = decode(film("mp4", [low, high]), track=1)[1]
    assert 880 < np.argmax(np.abs(np.fft.rfft(heard[:48_000, 0]))) < 920


def test_tags_in_any_encoding_refuse_no_file() -> None:
    title = chunk(b"LIST", b"INFO" + chunk(b"INAM", "Müller ⌘".encode("cp1252", "replace") + b"\xff\xfe\0"))
    assert len(decode(riff(tone(1).tobytes(), before=title))[1]) == 16_000


SEEDS = [
    (encode(tone(0.5), 16_000), 50), (encode(tone(1, 16_000), 16_000, "flac", "flac"), 50), (encode(tone(1, 48_000), 48_000, "ogg", "libopus"), 50),
    (encode(tone(1, 48_000), 48_000, "mp4", "aac"), 50), (encode(tone(1, 48_000), 48_000, "webm", "libopus"), 50),
    (encode(tone(1, 16_000), 16_000, "mp3", "libmp3lame"), 30), (encode(tone(1), 16_000, "caf", "pcm_s16be"), 30),
    (encode(tone(1, 48_000), 48_000, "mpegts", "aac"), 30), (film("matroska", [tone(1, 48_000)] * 2, picture="mpeg4"), 30),
]  # fmt: skip


@pytest.mark.parametrize(("body", "tries"), SEEDS, ids=lambda value: sniffed(value) if isinstance(value, bytes) else "")
def test_a_damaged_file_is_decoded_or_refused_with_a_reason_that_is_its_own(
    body: bytes, tries: int, decoder: MediaDecoder
) -> None:
    dice, refusals = random.Random(0), list[RefusedError]()
    for _ in range(tries):
        with opened(mutated(body, dice)) as file:
            try:
                with decoder.decode(file, mix=True) as decoding:
                    rest(decoding)
            except RefusedError as error:
                refusals.append(error)
    # No limit is reached: a child that fell over its input says so.
    assert [error.detail for error in refusals if error.reason is Reason.DECODE_LIMIT or not error.detail] == []


def sniffed(body: bytes) -> str:
    found = find(io.BytesIO(body), len(body))
    return "none" if found is None else found.kind


def mutated(body: bytes, dice: random.Random) -> bytes:
    """``body`` with some bytes set, cut out, or repeated, most of them in its first 700."""
    out = bytearray(body)
    for _ in range(dice.choice([1, 1, 2, 4, 16])):
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
