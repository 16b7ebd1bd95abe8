"""Publish, follow and demo without a broker: what a command line stands for, what is drawn, what is counted."""

import io
import os
import threading
import wave
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from kaption.adapters.media.local import AudioFile, is_media
from kaption.cli.demo import scoring as demo
from kaption.cli.follow import _Lines, _Txt, shows
from kaption.cli.follow import command as follow
from kaption.cli.playing import object_name
from kaption.cli.publish import command as publish
from kaption.cli.screen import Screen, line
from kaption.domain.intake.bucket_events import Place, within
from kaption_schemas.errors import AudioFileError
from kaption_schemas.languages import language
from kaption_schemas.reasons import Reason
from kaption_schemas.records import MediaObject, RunOptions, Word
from tests.support.transcripts import RUN, completed, final, gap, partial, progress

SPEECH = Path(__file__).parents[2] / "demo" / "speech"
TALK = SPEECH / "harbour-1-joe.flac"


def wav(path: Path, rate: int, channels: int, seconds: float = 1.0) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(range(256)) * round(rate * channels * 2 * seconds / 256))
    return path


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16000, 2), (44100, 1)])
def test_a_file_comes_back_in_frames_of_100_ms_bit_for_bit(tmp_path: Path, rate: int, channels: int) -> None:
    path = wav(tmp_path / "a.wav", rate, channels)
    with AudioFile(path) as audio:
        assert (audio.format.rate, audio.format.channels) == (rate, channels)
        frames = list(audio.frames())
    assert {len(frame) for frame in frames[:-1]} == {rate // 10 * channels * 2}
    with wave.open(str(path)) as file:
        assert b"".join(frames) == file.readframes(file.getnframes())


def test_a_rate_that_is_not_taken_is_resampled(tmp_path: Path) -> None:
    with AudioFile(wav(tmp_path / "a.wav", 96000, 1)) as audio:
        assert audio.format.rate == 48000
        assert sum(map(len, audio.frames())) == pytest.approx(48000 * 2, rel=0.01)


def test_what_is_no_audio_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "text.mp3"
    path.write_text("no audio at all\n" * 100)
    with pytest.raises(AudioFileError, match=r"text\.mp3"):
        AudioFile(path).__enter__()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["-", "--stream", "a", "--as-object"], "standard input is live"),
        (["-", "--stream", "a", "--live", "--as-object"], "exclude each other"),
        (["-", "--stream", "a b"], "1-128 of"),
        (["/nowhere", "--stream", "a"], "there is no /nowhere"),
        (["-", "--stream", "a", "--language", "klingon"], "no language that Whisper knows"),
        (
            ["-", "--stream", "a", "--redaction", "NAMES,EMAIL_ADDRESS"],
            "NAMES can't be found: give some of CREDIT_CARD",
        ),
        ([str(TALK), "--stream", "a", "--channels", "2"], "a file says what it holds"),
        ([str(TALK), "--stream", "a", "--rate", "8000", "--live"], "a file says what it holds"),
        (["-", "--stream", "a", "--track", "1"], "--track is for files"),
        (["-", "--stream", "a", "--vocabulary", "a" * 65], "--vocabulary"),
    ],
)
def test_a_wrong_publish_is_refused_before_anything_is_sent(argv: list[str], said: str) -> None:
    result = CliRunner().invoke(publish, argv)
    assert result.exit_code == 2
    assert said in result.output


@pytest.mark.parametrize("name", ["text.mp3", "text"])
def test_a_file_that_is_no_media_is_refused_before_anything_is_sent(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("<html>404</html>\n" * 100)
    result = CliRunner().invoke(publish, [str(tmp_path / name), "--stream", "a"])
    assert result.exit_code == 1
    assert "no audio or video of a container that is read" in result.output


def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    told: list[str] = []
    thread = threading.Thread(
        target=lambda: told.append(CliRunner().invoke(publish, [str(tmp_path), "--stream", "a"]).output), daemon=True
    )
    thread.start()
    thread.join(10)
    assert told
    assert "there are no audio or video files" in told[0]


@pytest.mark.parametrize("name", [b"M\xfcller.wav", b"a\\b.wav", b"..%2f...wav", b"%2e%2e", b"two\nlines.wav"])
def test_a_file_may_have_any_name(name: bytes) -> None:
    """An old archive's names are no UTF-8, which ended the command; others were uploaded and then refused as out of place."""
    key = f"acme/s/{object_name(Path(os.fsdecode(name)))}"
    assert key.encode()
    assert within(MediaObject(bucket="media", key=key), Place("media", "acme/"))
    assert object_name(Path("Besprechung März (2).wav")) == "Besprechung März (2).wav"


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("en", "en"),
        ("en-US", "en"),
        ("EN", "en"),
        ("English", "english"),
        ("nb_NO", "no"),
        ("auto", "auto"),
        ("zh-Hant-TW", "zh"),
    ],
)
def test_a_language_is_what_people_write_for_it(written: str, code: str) -> None:
    if written != "English":  # a person's word, and no tag: the command line alone takes it
        assert RunOptions(language=written).language == code
    assert language(written) == code.replace("english", "en")


@pytest.mark.parametrize("wrong", ["klingon", "", "e", "en US", "eng", "xx"])
def test_what_is_no_language_is_none(wrong: str) -> None:
    assert language(wrong) is None


@pytest.mark.parametrize(
    "argv",
    [
        ["--until-completed"], ["a b"], ["--tenant", "A"], ["--srt"], ["a", "b", "--vtt"], ["--run", RUN],
        ["a", "--run", "latest"],
    ],
)  # fmt: skip
def test_a_wrong_follow_is_refused(argv: list[str]) -> None:
    assert CliRunner().invoke(follow, argv).exit_code == 2


@pytest.mark.parametrize("finals", [False, True])
def test_text_of_a_run_is_whole_once_it_is_completed(capsys: pytest.CaptureFixture[str], finals: bool) -> None:
    """Cues no longer wait for another channel, and nothing of the run is kept: the command may run without end."""
    text = _Txt()
    for record in (final(0, "First.", channels=2), gap(), completed()):
        if shows(text, record, finals=finals):
            text.show(record)
    assert capsys.readouterr().out == "1: First.\n"
    assert not text._runs


def test_finals_alone_are_finals_alone() -> None:
    lines = _Lines()
    assert [shows(lines, record, finals=True) for record in (gap(), completed(), final(0))] == [False, False, True]
    assert all(shows(lines, record, finals=False) for record in (gap(), completed(), final(0)))


def test_lines_say_what_kind_they_are() -> None:
    assert line(partial(0, 1, text="so\x1b[2J far")) == "call  0:00.0  ~ so [2J far"
    assert line(final(3, "It is.", channel=1)) == "call#2  0:12.0  It is."
    assert line(final(0, "")) == ""
    assert "lost" in line(gap())
    assert "1 segment," in line(completed())
    assert line(completed(reason=Reason.NOT_MEDIA)) == f"call  [not_media: {Reason.NOT_MEDIA.meaning}]"
    assert line(progress(2000)) == ""


def test_how_far_a_file_is_stands_below_until_it_is_completed() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, _environ={})
    assert isinstance(console.file, io.StringIO)
    with Screen(console) as screen:
        screen.show(progress(15_000, total_ms=None))
        assert "0:15.0\x1b" in console.file.getvalue()
        screen.show(progress(30_500))
        assert "0:30.5 of 1:00.0, 50 %" in console.file.getvalue()
        screen.show(completed())
        console.file.truncate(0)
        screen.refresh()
        assert "0:30.5" not in console.file.getvalue()


def test_a_partial_grows_below_and_its_final_replaces_it() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, _environ={})
    with Screen(console) as screen:
        screen.show(partial(0, 1, text="good mor", stable=4))
        screen.show(partial(1, 1, text="second"))
        assert [record.segment for record in screen.growing] == [0, 1]
        screen.show(final(0, "Good morning."))
        assert [record.segment for record in screen.growing] == [1]
        screen.show(completed())
        assert screen.growing == ()
    assert isinstance(console.file, io.StringIO)
    assert "Good morning." in console.file.getvalue()


def test_the_shipped_speech_is_two_talks_of_two_minutes() -> None:
    talks = demo.load_talks(SPEECH)
    assert [talk.name for talk in talks] == ["harbour", "workshop"]
    assert 110 < demo.together("all", talks).seconds < 130
    assert all("[" not in talk.text for talk in talks)
    assert sum(file.stat().st_size for file in SPEECH.iterdir()) < 4_000_000


def test_a_folder_without_speech_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(AudioFileError, match="no speech"):
        demo.load_talks(tmp_path)


def test_a_score_counts_errors_and_latencies() -> None:
    talk = demo.Talk("t", b"", "We have twenty four boats.")
    score = demo.Score(talk, live=True)
    assert score.wer() == 1.0
    assert score.take(partial(0, 1, text="we have"), 1.5) == pytest.approx(0.5)
    words = (Word(text="we", start_ms=0, end_ms=2000, probability=1),)
    assert score.take(final(0, "we have 24 boats", words), 3.0) == pytest.approx(1.0)
    assert score.take(completed(), 5.0) is None
    assert (score.completed, score.wer()) == (True, 0.0)
    assert demo.percentiles([]) == (0.0, 0.0)
    assert demo.percentiles([1.0] * 9 + [2.0]) == pytest.approx((1.0, 1.55))


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile secret.wav\n",
        "#EXTM3U\n#EXTINF:10,\nsecret.wav\n",
        "v=0\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
    ],
)
def test_a_playlist_opens_no_other_file(tmp_path: Path, text: str) -> None:
    wav(tmp_path / "secret.wav", 16000, 1)
    path = tmp_path / "song.mp3"
    path.write_text(text)
    assert not is_media(path)
    with pytest.raises(AudioFileError, match="no audio or video of a container that is read here"):
        AudioFile(path).__enter__()
