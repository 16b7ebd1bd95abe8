"""``kaption publish`` and ``kaption follow`` as processes against a broker."""

import asyncio
import io
import itertools
import json
import os
import signal
import sys
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from aiokafka import AIOKafkaProducer

from kaption import Transcripts
from kaption.adapters.settings import Settings
from kaption.testing.brokers import EmbeddedBroker
from kaption.testing.topics import create_topics
from kaption_schemas.headers import text_headers
from kaption_schemas.reasons import Reason
from kaption_schemas.topics import EVENTS
from tests.conftest import MakeSettings
from tests.integration.test_client import on_the_wire
from tests.support.fake_store import FakeStore
from tests.support.transcripts import RUN, completed, final, partial, put

NEWER = "01J00000000000000000000000"
TALK = Path(__file__).parents[2] / "demo" / "speech" / "harbour-1-joe.flac"


@pytest.fixture
async def settings(fresh_kafka: EmbeddedBroker, make_settings: MakeSettings) -> Settings:
    made = make_settings(fresh_kafka)
    await create_topics(made)
    return made


async def start(settings: Settings, *argv: str, stdin: int | None = None) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kaption.cli.main", *argv, "--kafka", settings.kafka,
        stdin=stdin, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if not name.startswith("KAPTION_")},
    )  # fmt: skip


async def finish(child: asyncio.subprocess.Process, data: bytes | None = None) -> str:
    status, out, err = await end(child, data)
    assert status == 0, err
    return out


async def end(child: asyncio.subprocess.Process, data: bytes | None = None) -> tuple[int | None, str, str]:
    """Status, output and errors."""
    async with asyncio.timeout(30):
        out, err = await child.communicate(data)
    return child.returncode, out.decode(), err.decode()


def wav(rate: int, channels: int, samples: int, length: int | None = None) -> bytes:
    """A 16-bit WAV of counted samples, whose header says ``length`` bytes (default: the true length)."""
    file = io.BytesIO()
    with wave.open(file, "wb") as audio:
        audio.setnchannels(channels)
        audio.setsampwidth(2)
        audio.setframerate(rate)
        audio.writeframes(b"".join((n % 30_000).to_bytes(2, "little") * channels for n in range(samples)))
    data = file.getvalue()
    return data if length is None else data[:40] + length.to_bytes(4, "little") + data[44:]


def with_hole(path: Path, rate: int, seconds: float) -> Path:
    """Write a Matroska file with a second of sound and a hole of ``seconds`` in its middle."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        for number in range(10):
            block = np.full((1, rate // 10), 1000 + number, np.int16)
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            frame.rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = number * rate // 10 + (number >= 5) * round(seconds * rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


async def published(settings: Settings) -> list[tuple[dict[str, str], bytes]]:
    """Headers and bodies of the events, in their order."""
    records = await on_the_wire(settings, EVENTS.name)
    return [(text_headers(record.headers), record.value) for record in records]


async def test_standard_input_is_a_live_stream(settings: Settings) -> None:
    audio = bytes(range(250)) * 80  # 625 ms
    child = await start(settings, "publish", "-", "--stream", "mic", "--json", stdin=asyncio.subprocess.PIPE)
    told = json.loads(await finish(child, audio))
    assert (told["stream"], told["seconds"]) == ("mic", 0.625)
    records = await on_the_wire(settings, EVENTS.name)
    assert b"".join(record.value for record in records[1:-1]) == audio


@pytest.mark.parametrize("length", [None, 0, 0x7FFFF000, 0xFFFFFFFF])
async def test_a_wav_on_standard_input_is_recognised(settings: Settings, length: int | None) -> None:
    data = wav(44100, 2, 22050, length)
    child = await start(settings, "publish", "-", "--stream", "mic", "--json", stdin=asyncio.subprocess.PIPE)
    told = json.loads(await finish(child, data))
    (_, started), *frames, _ = await published(settings)
    assert json.loads(started)["format"] == {"encoding": "s16le", "rate": 44100, "channels": 2}
    assert frames[0][0]["content-type"] == "audio/pcm;rate=44100;channels=2;encoding=s16le"
    assert b"".join(body for _, body in frames) == data[44:]
    assert told["seconds"] == 0.5


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (TALK.read_bytes(), "standard input is FLAC"),
        (wav(96000, 1, 100), "a WAV of 1 channels of 96000 Hz in 16 bits"),
        (wav(16000, 1, 100)[:30], "a WAV whose header can't be read"),
    ],
    ids=["flac", "rate", "cut"],
)
async def test_another_file_on_standard_input_is_refused_with_a_word(
    settings: Settings, data: bytes, said: str
) -> None:
    child = await start(settings, "publish", "-", "--stream", "mic", stdin=asyncio.subprocess.PIPE)
    status, _, err = await end(child, data)
    assert status == 1
    assert said in err
    assert await on_the_wire(settings, EVENTS.name) == []


async def test_a_signal_ends_a_microphones_run_in_order(settings: Settings) -> None:
    child = await start(settings, "publish", "-", "--stream", "mic", stdin=asyncio.subprocess.PIPE)
    assert child.stdin is not None
    child.stdin.write(bytes(32000))
    async with asyncio.timeout(30):
        while len(await on_the_wire(settings, EVENTS.name)) < 5:
            await asyncio.sleep(0.1)
    child.send_signal(signal.SIGINT)
    await finish(child)
    head, body = (await published(settings))[-1]
    assert (head["ce_type"], json.loads(body)["reason"]) == ("kaption.stream.ended", "ended")


async def test_a_live_run_that_is_refused_ends_its_publisher(settings: Settings) -> None:
    child = await start(settings, "publish", str(TALK), "--stream", "call", "--live", "--language", "German")
    async with asyncio.timeout(30):
        while not (records := await on_the_wire(settings, EVENTS.name)):
            await asyncio.sleep(0.1)
        run = text_headers(records[0].headers)["ce_run"]
        async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as pool:
            await put(pool, completed(0, run=run, reason=Reason.UNSUPPORTED_LANGUAGE))
        status, _, err = await end(child)
    assert status == 1
    assert f"call: unsupported_language: {Reason.UNSUPPORTED_LANGUAGE.meaning}" in err
    assert json.loads(records[0].value)["options"]["language"] == "de"


async def test_a_folder_is_taken_by_first_bytes_and_what_is_left_out_is_named(
    settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "recordings"  # the broker has its own folder next to it
    folder.mkdir()
    (folder / "a.bin").write_bytes(wav(8000, 1, 1600))
    (folder / "b.wav").write_bytes(wav(8000, 2, 1600))
    (folder / "c.mp3").write_text("no audio at all\n" * 100)
    (folder / ".hidden").write_text("not looked at")
    (folder / "more").mkdir()
    child = await start(settings, "publish", str(folder), "--stream", "x", "--live", "--json", "--channels", "split")
    status, out, err = await end(child)
    assert [json.loads(line)["stream"] for line in out.splitlines()] == ["x.a.bin", "x.b.wav"]
    assert status == 1
    assert "c.mp3 is no audio or video" in err
    assert "more is left out: a folder" in err
    assert "2 of 4 went wrong" in err
    assert ".hidden" not in err
    started = [json.loads(body) for head, body in await published(settings) if head["ce_type"].endswith("started")]
    assert {one["options"]["channels"] for one in started} == {"split"}


async def test_a_hole_in_a_file_is_left_out_of_its_live_run(settings: Settings, tmp_path: Path) -> None:
    path = with_hole(tmp_path / "hole.mkv", 8000, 0.5)
    await finish(await start(settings, "publish", str(path), "--stream", "x", "--live"))
    places = [
        (int(head["ce_firstsample"]), len(body) // 2)
        for head, body in await published(settings)
        if head["ce_type"].endswith("frame")
    ]
    holes = [b[0] - sum(a) for a, b in itertools.pairwise(places) if b[0] != sum(a)]
    assert [pytest.approx(4000, abs=200)] == holes
    assert sum(places[-1]) == pytest.approx(8000 + 4000, abs=200)


@pytest.mark.parametrize("form", ["--srt", "--vtt", "--json", "--finals"])
async def test_who_follows_a_run_that_was_refused_hears_of_it(settings: Settings, form: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as pool:
        await put(pool, completed(0, reason=Reason.NOT_MEDIA))
    child = await start(settings, "follow", "call", "--from-beginning", "--until-completed", form)
    status, _, err = await end(child)
    assert status == 1
    assert err == f"Error: call: not_media: {Reason.NOT_MEDIA.meaning}\n"


async def test_a_stream_published_twice_is_followed_one_run_at_a_time(settings: Settings) -> None:
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as pool:
        for record in (final(0, "Older."), completed(), final(0, "Newer.", run=NEWER), completed(run=NEWER)):
            await put(pool, record)
    for options, expected in (((), "Newer."), (("--run", RUN), "Older."), (("--run", NEWER), "Newer.")):
        child = await start(settings, "follow", "call", "--from-beginning", "--srt", *options)
        assert await finish(child) == f"1\n00:00:00,000 --> 00:00:03,500\n{expected}\n\n"


async def test_channels_come_in_the_order_of_their_times_with_who_speaks(settings: Settings) -> None:
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as pool:
        for channel, texts in enumerate((("One.", "", "Three."), ("", "Two.", ""))):
            for segment, text in enumerate(texts):
                await put(pool, final(segment, text, channel=channel, channels=2))
        for channel in (0, 1):
            await put(pool, completed(3, channel=channel))
    child = await start(settings, "follow", "call", "--from-beginning", "--vtt")
    shown = [line for line in (await finish(child)).splitlines() if line.startswith("<v") or "-->" in line]
    assert shown == [
        "00:00:00.000 --> 00:00:03.500", "<v Channel 1>One.",
        "00:00:04.000 --> 00:00:07.500", "<v Channel 2>Two.",
        "00:00:08.000 --> 00:00:11.500", "<v Channel 1>Three.",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("--txt", "One.\nTwo.\n"),
        ("--srt", "1\n00:00:00,000 --> 00:00:03,500\nOne.\n\n2\n00:00:04,000 --> 00:00:07,500\nTwo.\n\n"),
        ("--finals", "call  0:00.0  One.\ncall  0:04.0  Two.\n"),
    ],
)
async def test_what_was_said_can_be_read_again_in_each_form(settings: Settings, form: str, expected: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as pool:
        for record in (
            partial(0, 1),
            final(0, "One."),
            final(0, "Else.", stream="other"),
            final(1, "Two."),
            completed(),
        ):
            await put(pool, record)
    child = await start(settings, "follow", "call", "--from-beginning", "--until-completed", form)
    assert await finish(child) == expected


async def test_a_follower_sees_what_comes_and_ends_at_a_signal_with_0(settings: Settings) -> None:
    child = await start(settings, "follow", "--json")
    assert child.stdout is not None
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as pool, asyncio.timeout(30):
        line, revision = asyncio.create_task(child.stdout.readline()), 0
        while not line.done():  # until it has found its place at the end of the log
            revision += 1
            await put(pool, partial(0, revision))
            await asyncio.wait((line,), timeout=0.2)
    assert json.loads(await line)["type"] == "partial"
    child.send_signal(signal.SIGINT)
    await finish(child)


@pytest.mark.parametrize(("answer", "status"), [(403, 77), (None, 69)])
async def test_a_store_that_refuses_a_file_is_not_one_that_is_away(
    settings: Settings, answer: int | None, status: int
) -> None:
    with FakeStore() as store:
        store.mood = lambda _method, _path: answer
        if answer is None:
            store.stop()
        ended, _, err = await end(
            await start(settings, "publish", str(TALK), "--stream", "x", "--s3", store.fields["s3"])
        )
    assert ended == status
    assert "KAPTION_S3" in err


@pytest.mark.parametrize("argv", [("follow",), ("publish", "-", "--stream", "a")])
async def test_a_broker_without_topics_is_said_so(fresh_kafka: EmbeddedBroker, argv: tuple[str, ...]) -> None:
    child = await start(Settings(kafka=fresh_kafka.bootstrap), *argv, stdin=asyncio.subprocess.DEVNULL)
    async with asyncio.timeout(30):
        _, err = await child.communicate()
    assert child.returncode == 78, err
    assert b"kaption topics create" in err


async def test_transcripts_of_a_tenant_without_topics(fresh_kafka: EmbeddedBroker) -> None:
    with pytest.raises(LookupError, match="kaption topics create"):
        await Transcripts(tenant="ghost", settings=Settings(kafka=fresh_kafka.bootstrap)).__aenter__()


async def test_a_file_that_is_cut_ends_its_live_run_as_aborted(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "cut.flac"
    sound = np.random.default_rng(1).integers(-3000, 3000, 16000, np.int16)
    soundfile.write(path, sound, 16000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    status, _, err = await end(await start(settings, "publish", str(path), "--stream", "x", "--live"))
    assert status == 1
    assert "cut.flac can't be decoded" in err
    head, body = (await published(settings))[-1]
    assert (head["ce_type"], json.loads(body)["reason"]) == ("kaption.stream.ended", "aborted")
