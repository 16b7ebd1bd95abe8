"""Frames in containers, decoded in a real child process that hostile bytes may kill."""

import io
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kaption.adapters.media.frames import FrameDecoder
from kaption_schemas.content_type import FrameFormat
from kaption_schemas.errors import RefusedError
from tests.support import hostile

TENANT = "acme"


@pytest.fixture(scope="module")
def decoder() -> Iterator[FrameDecoder]:
    child = FrameDecoder()
    yield child
    child.close()


def encoded(
    container: str, subtype: str, rate: int = 16000
) -> tuple[bytes, np.ndarray[tuple[int], np.dtype[np.int16]]]:
    samples = (np.sin(np.arange(rate // 5) / 10) * 8000).astype(np.int16)
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=container, subtype=subtype)
    return out.getvalue(), samples


@pytest.mark.parametrize(("container", "subtype"), [("FLAC", "PCM_16"), ("WAV", "PCM_16"), ("OGG", "VORBIS")])
def test_containers(decoder: FrameDecoder, container: str, subtype: str) -> None:
    body, samples = encoded(container, subtype)
    out = np.frombuffer(decoder(body, FrameFormat(container.lower(), 16000, 1), TENANT), "<i2")
    assert len(out) == len(samples)
    error = np.abs(out.astype(int) - samples).mean()
    assert error < 1 if subtype == "PCM_16" else error < 400


def test_another_format_than_declared_is_refused(decoder: FrameDecoder) -> None:
    with pytest.raises(RefusedError):
        decoder(encoded("FLAC", "PCM_16")[0], FrameFormat("flac", 8000, 1), TENANT)


@pytest.mark.parametrize("body", [b"RIFF" + b"\xff" * 60, b"fLaC" + b"\0" * 200, b"text", b"OggS" * 50])
def test_hostile_bytes_refuse_only_themselves(decoder: FrameDecoder, body: bytes) -> None:
    with pytest.raises(RefusedError):
        decoder(body, FrameFormat("wav", 16000, 1), TENANT)
    assert decoder(encoded("WAV", "PCM_16")[0], FrameFormat("wav", 16000, 1), TENANT)


def test_a_child_that_died_is_replaced(decoder: FrameDecoder) -> None:
    good = encoded("WAV", "PCM_16")[0]
    decoder(good, FrameFormat("wav", 16000, 1), TENANT)
    before = decoder.pid(TENANT)
    assert before is not None
    os.kill(before, signal.SIGKILL)
    until = time.monotonic() + 10
    while Path(f"/proc/{before}").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    assert decoder(good, FrameFormat("wav", 16000, 1), TENANT)


def test_a_frame_that_was_given_up_takes_no_other_frames_answer(decoder: FrameDecoder) -> None:
    """The thread of a stage that took too long continues while the next one's runs."""
    sounds = [np.full(3200, number, "<i2") for number in range(1, 9)]
    frames = []
    for sound in sounds:
        out = io.BytesIO()
        soundfile.write(out, sound, 16000, format="WAV", subtype="PCM_16")
        frames.append(out.getvalue())
    with ThreadPoolExecutor(8) as threads:
        for _ in range(20):
            done = list(threads.map(lambda body: decoder(body, FrameFormat("wav", 16000, 1), TENANT), frames))
            assert done == [sound.tobytes() for sound in sounds]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_for_the_service_refuses_no_frame(decoder: FrameDecoder, number: int) -> None:
    """A service manager, or a terminal, may send it to all processes."""
    good, form = encoded("WAV", "PCM_16")[0], FrameFormat("wav", 16000, 1)
    decoder(good, form, TENANT)
    before = decoder.pid(TENANT)
    assert before is not None
    os.kill(before, number)
    assert decoder(good, form, TENANT)
    assert decoder.pid(TENANT) == before


def test_the_child_knows_nothing_of_its_parents_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords stand in it, and the child reads hostile bytes."""
    monkeypatch.setenv("KAPTION_KAFKA_PASSWORD", "open sesame")
    body, _ = encoded("FLAC", "PCM_16")
    child = FrameDecoder()
    try:
        assert child(body, FrameFormat("flac", 16000, 1), TENANT)
        assert child.pid(TENANT) is not None
        if os.geteuid() == 0:  # it is hidden from everybody else
            assert b"KAPTION" not in Path(f"/proc/{child.pid(TENANT)}/environ").read_bytes()
    finally:
        child.close()


def test_a_child_holds_a_socket_and_nothing_of_the_agents(decoder: FrameDecoder) -> None:
    """What a library prints goes nowhere: once it went to the agent, as an answer."""
    decoder(encoded("WAV", "PCM_16")[0], FrameFormat("wav", 16000, 1), TENANT)
    if os.geteuid() != 0:
        return  # it is hidden from everybody else
    held = {os.readlink(entry) for entry in Path(f"/proc/{decoder.pid(TENANT)}/fd").iterdir()}
    assert len(held) == 2, held
    assert all(name == "/dev/null" or name.startswith("socket:") for name in held), held


@pytest.mark.parametrize("declared", ["flac", "ogg", "wav"])
def test_no_other_parser_of_the_library_sees_a_frame(
    decoder: FrameDecoder, declared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # who writes SD2 leaves a file "._" where he stands
    good, form = encoded("WAV", "PCM_16")[0], FrameFormat("wav", 16000, 1)
    decoder(good, form, TENANT)
    before = decoder.pid(TENANT)
    of = {"flac": {"FLAC"}, "ogg": {"OGG"}, "wav": {"WAV", "WAVEX"}}
    for container in soundfile.available_formats():
        subtypes = list(soundfile.available_subtypes(container))
        if container in of[declared] or "PCM_16" not in subtypes:
            continue
        with pytest.raises(RefusedError):
            decoder(encoded(container, "PCM_16")[0], FrameFormat(declared, 16000, 1), TENANT)
    sds = bytes.fromhex("f07e0001")  # a dump of samples by MIDI: this parser reads without end, and prints
    with pytest.raises(RefusedError):
        decoder(sds + bytes(2000), FrameFormat(declared, 16000, 1), TENANT)
    assert decoder(good, form, TENANT)
    assert decoder.pid(TENANT) == before


@pytest.mark.parametrize("container", ["WAV", "WAVEX"])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_floating_point_is_heard(decoder: FrameDecoder, container: str, subtype: str) -> None:
    out = io.BytesIO()
    samples = np.array([0.0, 0.5, -0.5, 1.0, -1.0, 7.0, -7.0, np.nan, np.inf, -np.inf] * 400)
    soundfile.write(out, samples, 16000, format=container, subtype=subtype)
    pcm = np.frombuffer(decoder(out.getvalue(), FrameFormat("wav", 16000, 1), TENANT), "<i2")
    assert pcm[:10].tolist() == [0, 16384, -16384, 32767, -32768, 32767, -32768, 0, 0, 0]


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "PCM_U8", "ULAW", "ALAW", "IMA_ADPCM"])
def test_whole_numbers_are_as_the_library_reads_them(decoder: FrameDecoder, subtype: str) -> None:
    body, _ = encoded("WAV", subtype)
    pcm, _ = soundfile.read(io.BytesIO(body), dtype="int16")
    assert decoder(body, FrameFormat("wav", 16000, 1), TENANT) == pcm.astype("<i2").tobytes()


class Clock:
    """A clock that stands still until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hostile_decoder(clock: Clock) -> Iterator[FrameDecoder]:
    """Its children do what a frame says behind its mark (``support/hostile.py``)."""
    decoder = FrameDecoder((hostile.__file__, "frames"), clock)
    yield decoder
    decoder.close()


def ask(decoder: FrameDecoder, what: bytes, tenant: str) -> int | None:
    """The process id of the child that answered, within 16 bits; None when the frame was refused."""
    try:
        return int.from_bytes(decoder(b"fLaC" + what, FrameFormat("flac", 16000, 1), tenant), "little")
    except RefusedError:
        return None


def test_what_begins_as_nothing_known_reaches_no_decoder(hostile_decoder: FrameDecoder) -> None:
    for body in (b"\xf0~\0\x01", b"RIFF", b"flaC", b"", b"fLa"):
        with pytest.raises(RefusedError):
            hostile_decoder(body, FrameFormat("flac", 16000, 1), "acme")
    assert hostile_decoder.pid("acme") is None


@pytest.mark.parametrize("what", [b"spin", b"wait", b"fall", b"long", b"odd", b"lies", b"drip"])
def test_what_a_frame_does_to_its_decoder_no_other_tenant_notices(hostile_decoder: FrameDecoder, what: bytes) -> None:
    quiet, loud = ask(hostile_decoder, b"", "globex"), ask(hostile_decoder, b"", "acme")
    assert None is not quiet != loud
    begin = time.monotonic()
    assert ask(hostile_decoder, what, "acme") is None
    assert time.monotonic() - begin < 4
    assert ask(hostile_decoder, b"", "globex") == quiet
    assert ask(hostile_decoder, b"", "acme") is not None


def test_a_frame_that_hangs_uses_little_of_the_processor(hostile_decoder: FrameDecoder) -> None:
    assert ask(hostile_decoder, b"", "acme")
    parent = stat(hostile_decoder.pid("acme"))[1]
    assert ask(hostile_decoder, b"spin", "acme") is None
    ended = sum(map(int, stat(parent)[13:15])) / os.sysconf("SC_CLK_TCK")
    assert 0.2 < ended < 0.8


def stat(pid: object) -> list[str]:
    """What /proc says of a process behind its name: state, parent, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def test_thirty_frames_that_hang_cost_three_tries(hostile_decoder: FrameDecoder, clock: Clock) -> None:
    assert ask(hostile_decoder, b"", "globex")
    failed = [ask(hostile_decoder, b"spin", "acme") for _ in range(3)]
    assert failed == [None] * 3
    before = time.process_time(), time.monotonic()
    assert [ask(hostile_decoder, b"spin", "acme") for _ in range(27)] == [None] * 27
    assert time.monotonic() - before[1] < 1
    assert ask(hostile_decoder, b"", "acme") is None
    assert ask(hostile_decoder, b"", "globex")
    clock.now = 59
    assert ask(hostile_decoder, b"", "acme") is None
    clock.now = 61
    assert ask(hostile_decoder, b"", "acme")


def test_failures_far_apart_refuse_only_themselves(hostile_decoder: FrameDecoder, clock: Clock) -> None:
    for minute in range(4):
        clock.now = 31.0 * minute
        assert ask(hostile_decoder, b"fall", "acme") is None
        assert ask(hostile_decoder, b"", "acme")


@pytest.mark.parametrize("idle", [True, False])
def test_children_that_are_lost_refuse_no_frame(hostile_decoder: FrameDecoder, idle: bool) -> None:
    """What forked them was killed, for want of memory or by mistake, and took them along."""
    before = ask(hostile_decoder, b"", "acme")
    pid = hostile_decoder.pid("acme")
    parent = int(stat(pid)[1])
    with ThreadPoolExecutor(1) as thread:
        if not idle:
            asked = thread.submit(ask, hostile_decoder, b"wait at %d" % parent, "acme")
            time.sleep(0.1)  # sooner, it is idle all the same
        os.kill(parent, signal.SIGKILL)
        if idle:
            until = time.monotonic() + 10
            while Path(f"/proc/{pid}").exists():
                assert time.monotonic() < until
                time.sleep(0.01)
            asked = thread.submit(ask, hostile_decoder, b"", "acme")
        assert None is not asked.result() != before


def test_more_tenants_than_children(hostile_decoder: FrameDecoder) -> None:
    first = ask(hostile_decoder, b"", "first")
    pid = hostile_decoder.pid("first")
    assert len({ask(hostile_decoder, b"", f"tenant-{number}") for number in range(32)}) == 32
    assert hostile_decoder.pid("first") is None
    assert not Path(f"/proc/{pid}").exists()
    assert ask(hostile_decoder, b"", "first") != first
