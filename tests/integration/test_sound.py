"""Tests files of real recorders, pipes and editors, and small ones that claim to be long: the sound of each, and its times."""

import io
import struct
import time
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
import numpy.typing as npt
import pytest

from kaption.adapters.media.container_parts import parts
from kaption.adapters.media.containers import find
from kaption.adapters.media.sound import Sound
from kaption_schemas.errors import RefusedError
from kaption_schemas.reasons import Reason
from tests.support.media import chunk, encode, film, riff, tag, tone

Pcm = npt.NDArray[np.int16]
TONE = tone(2)
WAV = TONE.tobytes()


def hear(body: bytes, track: int | None = None) -> tuple[Pcm, int]:
    """The PCM, shape (n, channels), and its rate."""
    sound, out = Sound(io.BytesIO(body), track), bytearray()
    for piece in sound.pieces():
        out += bytes(2 * piece.hole * sound.channels) + piece.pcm
    assert len(out) == 2 * sound.samples * sound.channels
    return np.frombuffer(bytes(out), "<i2").reshape(-1, sound.channels), sound.rate


def seconds(body: bytes) -> float:
    pcm, rate = hear(body)
    return len(pcm) / rate


def refusal(body: bytes, track: int | None = None) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        hear(body, track)
    return caught.value


def begins(body: bytes) -> float:
    """Seconds before the first sample that sounds."""
    pcm, rate = hear(body)
    return float(np.argmax(np.abs(pcm[:, 0].astype(int)) > 2000)) / rate


def pitch(body: bytes, track: int | None = None) -> int:
    """Hertz of the loudest tone, to the nearest ten."""
    pcm, rate = hear(body, track)
    return round(int(np.argmax(np.abs(np.fft.rfft(pcm[:rate, 0])))) / 10) * 10


# -- WAV headers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size",
    [
        0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x7FFFFF00, 0x80000000, 0xFFFFFF9B, 0xFFFFFFF0, 0x80000024,
        len(WAV) + 1, len(WAV) + 4, len(WAV) + 16, len(WAV) + 44, len(WAV) - 1, len(WAV) - 4, len(WAV) // 2, 100,
    ],
    ids=hex,
)  # fmt: skip
def test_a_wav_whose_header_counts_wrong_is_read_to_its_end(size: int) -> None:
    assert abs(len(hear(riff(WAV, size=size))[0]) - len(TONE)) <= 2


def test_a_wav_that_lacks_more_than_a_writer_miscounts_is_cut_off() -> None:
    long = tone(60).tobytes()
    assert len(hear(riff(long[:-4000], size=len(long)))[0]) == 60 * 16_000 - 2000
    for there, said in ((len(WAV) // 2, len(WAV)), (len(WAV) - 700, len(WAV)), (len(WAV), 1 << 30)):
        error = refusal(riff(WAV[:there], size=said))
        assert error.reason is Reason.TRUNCATED
        assert str(there) in error.detail


def test_what_stands_behind_a_wavs_samples_is_not_heard() -> None:
    title = chunk(b"LIST", b"INFO" + chunk(b"INAM", "Müller".encode("latin-1") + b"\0"))
    for body in (
        riff(WAV, after=title),
        riff(WAV, before=title),
        riff(WAV, after=bytes(500)),
        riff(WAV[:-1], after=title),
    ):
        assert abs(len(hear(body)[0]) - len(TONE)) <= 1
    assert refusal(riff(b"", after=title)).reason is Reason.NO_AUDIO


def test_a_wav_of_64_bits_says_its_size_elsewhere() -> None:
    def wide(size: int) -> bytes:
        body = riff(WAV, size=0xFFFFFFFF, form=b"RF64")
        return body[:12] + chunk(b"ds64", struct.pack("<QQQI", size + 72, size, len(TONE), 0)) + body[12:]

    assert [len(hear(wide(size))[0]) for size in (len(WAV), 0)] == [len(TONE)] * 2
    assert refusal(wide(1 << 61)).reason is Reason.TRUNCATED


@pytest.mark.parametrize(("code", "width"), [("<f4", 4), ("<f8", 8)])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_float_samples_that_are_no_numbers_are_silent(code: str, width: int, value: float) -> None:
    wave = 0.25 * np.sin(np.arange(16_000) / 6)
    wave[500:600] = value
    pcm = hear(riff(wave.astype(code).tobytes(), tag=3, width=width))[0][:, 0].astype(int)
    assert np.abs(pcm[500:600]).max() == 0
    assert 8000 < np.abs(pcm).max() < 8300


@pytest.mark.parametrize("rate", [0, 1, 999, 1 << 31])
def test_a_rate_that_nobody_speaks_at_is_named(rate: int) -> None:
    error = refusal(riff(WAV, rate, width=0))
    assert error.reason is Reason.UNSUPPORTED_FORMAT
    assert f"{rate} Hz" in error.detail


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), -1.0, 1e300, 5e9])
@pytest.mark.parametrize(("container", "codec"), [("matroska", "pcm_s16le"), ("webm", "libopus")])
def test_a_rate_that_is_none_is_named_and_not_taken_for_another(container: str, codec: str, value: float) -> None:
    body = encode(tone(1, 48_000), 48_000, container, codec)
    at = body.index(b"\xb5\x88") + 2
    broken = body[:at] + struct.pack(">d", value) + body[at + 8 :]
    for whole in (broken, body + broken):
        error = refusal(whole)
        assert error.reason is Reason.UNSUPPORTED_FORMAT
        assert error.detail == f"matroska: a rate of {value:g} Hz at byte {whole.index(struct.pack('>d', value))}"


@pytest.mark.parametrize(("container", "codec"), [("mov", "pcm_s16le"), ("mp4", "aac")])
def test_an_index_that_leaves_out_most_of_the_sound_is_named(container: str, codec: str) -> None:
    body = encode(tone(4), 16_000, container, codec)
    chunks, clock, edit = body.index(b"stsc") + 16, body.index(b"mdhd") + 16, body.index(b"elst") + 12

    def put(at: int, value: int, body: bytes = body) -> bytes:
        return body[:at] + struct.pack(">I", value) + body[at + 4 :]

    for value in (0, 0xFFFFFFFF):
        assert refusal(put(clock, value)).reason is Reason.TRUNCATED
        assert refusal(put(clock, value, body.replace(b"edts", b"free"))).reason is Reason.TOO_SPARSE
        assert refusal(put(chunks, value)).reason in (Reason.TRUNCATED, Reason.NOT_MEDIA)
    assert "mov: 0.1 s of 4.0" in refusal(put(clock, 0)).detail
    # What a recorder or an editor means: a cut of the sound, and one that goes past its end.
    assert seconds(put(edit, 1000)) == pytest.approx(1, abs=0.1)
    assert seconds(put(edit + 4, 32_000)) == pytest.approx(2, abs=0.11)


def test_g722_is_heard_and_a_codec_that_is_not_is_named() -> None:
    assert seconds(encode(TONE, 16_000, "wav", "g722")) == pytest.approx(2, abs=0.05)
    error = refusal(encode(tone(1, 48_000, 2), 48_000, "matroska", "mp2").replace(b"A_MPEG/L2", b"A_TRUEHD\0"))
    assert error.reason is Reason.UNSUPPORTED_FORMAT
    assert "matroska: codec truehd" in error.detail


# -- what stands before the sound, and behind it ---------------------------------------------------------------------


@pytest.mark.parametrize("size", [100, 8000, 300_000])
@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("flac", "flac"),
        ("adts", "aac"),
        ("mp3", "libmp3lame"),
        ("wav", "pcm_s16le"),
        ("ogg", "libopus"),
        ("mp4", "aac"),
    ],
)
def test_tags_before_the_sound_are_passed_over(size: int, container: str, codec: str) -> None:
    body = encode(tone(2, 48_000), 48_000, container, codec)
    assert seconds(tag(size) + tag(50) + body) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(("container", "codec"), [("adts", "aac"), ("mp3", "libmp3lame"), ("mp2", "mp2")])
def test_bare_frames_that_begin_anywhere_are_found(container: str, codec: str) -> None:
    body = encode(tone(4, 48_000), 48_000, container, codec)
    for before in (bytes(3000), bytes(range(255)) * 20, b""):
        assert seconds(before + body) == pytest.approx(4, abs=0.15)
    assert seconds(body[1234:]) == pytest.approx(3.9, abs=0.2)


def test_packets_that_begin_anywhere_are_found() -> None:
    body = encode(tone(4, 48_000), 48_000, "mpegts", "aac")
    camera = b"".join(b"\0\0\0\0" + body[at : at + 188] for at in range(0, len(body), 188))
    for cut in (body[100:], camera, camera[77:]):
        assert seconds(cut) == pytest.approx(4, abs=0.1)


def test_files_that_were_put_one_behind_the_other_are_heard_in_turn() -> None:
    opus, vorbis = encode(tone(2, 48_000), 48_000, "ogg", "libopus"), encode(tone(1, 16_000, 2), 16_000, "ogg", "flac")
    mp3 = [encode(tone(3, rate), rate, "mp3", "libmp3lame") for rate in (44_100, 22_050)]
    flac = encode(tone(2, 44_100), 44_100, "flac", "flac")
    unknown = riff(WAV, size=0xFFFFFFFF)
    for body, length in (
        (riff(WAV) + riff(tone(3, 8000).tobytes(), 8000), 5.0),
        (unknown + riff(tone(3, 8000).tobytes(), 8000, size=0), 5.0),
        (opus + vorbis, 3.0),
        (vorbis + opus + vorbis, 4.0),
        (mp3[0] + mp3[1], 6.0),
        (mp3[0] + tag(5000).replace(b"\xff\xfb", b"  ") + mp3[0], 6.0),
        (flac + encode(tone(3, 16_000, 2), 16_000, "flac", "flac"), 5.0),
        (encode(tone(2, 48_000), 48_000, "webm", "libopus") * 2, 4.0),
        (encode(tone(2, 48_000), 48_000, "mp4", "aac") + encode(tone(3, 44_100, 2), 44_100, "mp4", "aac"), 5.0),
        (encode(tone(2, 48_000), 48_000, "mpegts", "aac") * 2, 4.0),
    ):
        pcm, rate = hear(body)
        assert len(pcm) / rate == pytest.approx(length, abs=0.15)
        last = pcm[-rate // 2 :, 0].astype(int)
        assert np.abs(last).max() > 4000, length
    assert refusal((opus + vorbis)[:-700]).reason is Reason.TRUNCATED
    assert refusal(flac + flac[: len(flac) // 2]).reason is Reason.TRUNCATED


def test_an_mp3_is_cut_off_if_it_lacks_frames_that_its_first_header_counts() -> None:
    body = encode(tone(4, 44_100), 44_100, "mp3", "libmp3lame")
    error = refusal(body[: len(body) // 2])
    assert error.reason is Reason.TRUNCATED
    assert "of 4." in error.detail


# -- tracks and times ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("container", "codec"), [("matroska", "libopus"), ("mp4", "aac"), ("mpegts", "aac")])
def test_of_several_tracks_the_default_or_the_first_that_sounds_is_heard(container: str, codec: str) -> None:
    low, high, nothing = tone(3, 48_000, hertz=300), tone(3, 48_000, hertz=900), np.zeros((3 * 48_000, 1), np.int16)
    assert pitch(film(container, [low, high], codec)) == 300
    assert pitch(film(container, [nothing, high], codec)) == 900
    assert pitch(film(container, [low, high], codec), track=1) == 900
    assert np.abs(hear(film(container, [nothing, high], codec), track=0)[0]).max() < 50
    if container != "mpegts":  # it has no such mark
        assert pitch(film(container, [low, high], codec, default=1)) == 900
        assert pitch(film(container, [low, nothing], codec, default=1)) == 300
    assert np.abs(hear(film(container, [nothing, nothing], codec))[0]).max() < 50
    error = refusal(film(container, [low, high], codec), track=2)
    assert (error.reason, error.detail.partition(": ")[2]) == (Reason.NO_AUDIO, "track 2 of 2, counted from 0")


@pytest.mark.parametrize(
    ("container", "picture", "codec"),
    [
        ("matroska", "libx264", "aac"), ("mp4", "libx264", "aac"), ("mpegts", "libx264", "aac"), ("flv", "libx264", "aac"),
        ("matroska", "mpeg4", "aac"), ("webm", "libvpx", "libopus"),
    ],
)  # fmt: skip
def test_sound_that_begins_behind_the_picture_keeps_its_time(container: str, picture: str, codec: str) -> None:
    body = film(container, [tone(1, 48_000)], codec, picture=picture, late=4)
    assert begins(body) == pytest.approx(4, abs=0.06)


def at_times(container: str, codec: str, starts: list[float]) -> bytes:
    """A second of a tone at each of ``starts``, by the file's clock."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        stream = cast("Any", file.add_stream(codec, rate=48_000, layout="mono"))
        for number, start in enumerate(starts):
            frame = av.AudioFrame.from_ndarray(tone(1, 48_000).reshape(1, -1), format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, number * 48_000, Fraction(1, 48_000)
            for packet in stream.encode(frame) + (stream.encode(None) if number == len(starts) - 1 else []):
                moved = round((start - number) / packet.time_base)
                packet.pts, packet.dts = packet.pts + moved, packet.dts + moved
                file.mux(packet)
    return out.getvalue()


@pytest.mark.parametrize(
    ("container", "codec"), [("matroska", "aac"), ("mpegts", "aac"), ("mp4", "aac"), ("flv", "aac")]
)
def test_a_hole_of_some_seconds_keeps_its_time(container: str, codec: str) -> None:
    pcm, rate = hear(at_times(container, codec, [0, 14]))
    loud = np.abs(pcm[:, 0].astype(int)) > 2000
    assert float(np.argmax(loud[2 * rate :])) / rate + 2 == pytest.approx(14, abs=0.1)
    assert len(pcm) / rate == pytest.approx(15, abs=0.2)


@pytest.mark.parametrize("start", [36_000, 900])
def test_a_clock_that_is_set_anew_in_a_broadcast_leaves_no_hole(start: int) -> None:
    assert seconds(at_times("mpegts", "aac", [0, 1, start, start + 1])) == pytest.approx(4, abs=0.2)
    body = encode(tone(3, 48_000), 48_000, "mpegts", "aac") + at_times("mpegts", "aac", [0, 9])
    assert seconds(body) == pytest.approx(13, abs=0.3), "a hole behind a clock that went back"


def test_hours_of_silence_between_two_sounds_are_refused() -> None:
    error = refusal(at_times("matroska", "libopus", [0, 21_500]))
    assert error.reason is Reason.TOO_SPARSE
    assert "matroska: 21499 s without sound after 1 s" in error.detail
    hold = at_times("matroska", "libopus", [0, 500])
    assert seconds(hold) == pytest.approx(501, abs=0.2), "a call on hold"


# -- structures that cost more than they hold ------------------------------------------------------------------------


def test_a_structure_is_walked_in_bounded_time() -> None:
    caf, mov = encode(TONE, 16_000, "caf", "pcm_s16be"), encode(TONE, 16_000, "mov", "pcm_s16le")
    at = caf.index(b"data")
    edits = bytearray(mov)
    where = edits.index(b"elst")
    edits[where + 8 : where + 12] = struct.pack(">I", 100_000)
    ogg = encode(tone(0.1, 48_000), 48_000, "ogg", "libopus")
    webm = encode(tone(0.1, 48_000), 48_000, "webm", "libopus")
    head = webm[: webm.index(b"\x18S\x80g")]
    for body, said in (
        (riff(WAV, before=chunk(b"junk", b"") * 2_000_000), "over 10000 chunks before"),
        (riff(WAV, after=chunk(b"junk", b"") * 2_000_000), "over 10000 chunks behind"),
        (riff(WAV, after=chunk(b"junk", b"") * 6000) * 40, "over 10000 chunks behind"),
        (caf[:at] + (b"free" + bytes(8)) * 1_000_000 + caf[at:], "over 10000 chunks"),
        (mov + b"\0\0\0\x08free" * 2_000_000, "over 100000 boxes"),
        (mov[:20] + struct.pack(">I4s", 8 + 8 * 500_000, b"moov") + b"\0\0\0\x08trak" * 500_000, "over 100000 boxes"),
        (bytes(edits), "an edit list of 100000 entries"),
        (ogg * 1001, "over 1000 recordings"),
        (head + b"\x18S\x80g\x01" + b"\xff" * 7 + b"\xec\x80" * 1_000_000, "over 100000 elements"),
    ):
        file, started = io.BytesIO(body), time.process_time()
        found = find(file, len(body))
        assert found is not None
        with pytest.raises(RefusedError) as caught:
            parts(file, found, len(body))
        assert caught.value.reason is Reason.DECODE_LIMIT
        assert said in caught.value.detail
        assert time.process_time() - started < 2


def test_an_unreadable_file_says_where() -> None:
    flac = encode(tone(2, 44_100), 44_100, "flac", "flac")
    cases = {
        flac[:42] + bytes(range(256)) * 40: "flac: InvalidDataError at byte",
        b"fLaC" + b"\xff" * 5000: "flac: InvalidDataError at byte",
        b"no media at all " * 99: "its first bytes are those of no container that is read here",
    }
    for body, said in cases.items():
        error = refusal(body)
        assert error.reason is Reason.NOT_MEDIA
        assert said in error.detail


def test_sizes_past_any_file_are_no_fault_of_a_library() -> None:
    webm = encode(tone(1, 48_000), 48_000, "webm", "libopus")
    huge = b"\x01\x7f" + b"\xff" * 6
    assert refusal(webm[:4] + b"\x01" + b"\xfe" * 7 + webm[5:]).reason is Reason.NOT_MEDIA
    assert refusal(webm[:4] + huge + webm[5:]).reason is Reason.NOT_MEDIA
    mov = encode(TONE, 16_000, "mov", "pcm_s16le")
    assert refusal(b"\0\0\0\x01free" + b"\xff" * 8 + mov).reason is Reason.TRUNCATED
    caf = encode(TONE, 16_000, "caf", "pcm_s16be")
    assert refusal(caf[:8] + b"free\x7f" + b"\xff" * 7 + caf[8:]).reason is Reason.TRUNCATED
