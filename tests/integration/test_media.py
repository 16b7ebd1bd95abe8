"""What is decoded of real files and of hostile ones."""

import io
import struct
import tempfile
import wave
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from kaption.adapters.media.containers import find
from kaption.adapters.media.files import MediaDecoder, MediaFormat
from kaption.adapters.media.sound import nearest_rate
from kaption.adapters.settings import Settings
from kaption_schemas.errors import RefusedError
from kaption_schemas.reasons import Reason
from tests.support.media import CONTAINERS, chunk, encode, film, riff, tone, video

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


@pytest.mark.parametrize(("container", "codec", "rate"), CONTAINERS)
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
