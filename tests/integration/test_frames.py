"""Frames in containers, decoded in a real child process that hostile bytes may kill."""

import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kaption.adapters.frames import FrameDecoder
from kaption.domain.events import RefusedError
from kaption.domain.pcm import FrameFormat


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
    out = np.frombuffer(decoder(body, FrameFormat(container.lower(), 16000, 1)), "<i2")
    assert len(out) == len(samples)
    error = np.abs(out.astype(int) - samples).mean()
    assert error < 1 if subtype == "PCM_16" else error < 400


def test_another_format_than_declared_is_refused(decoder: FrameDecoder) -> None:
    with pytest.raises(RefusedError):
        decoder(encoded("FLAC", "PCM_16")[0], FrameFormat("flac", 8000, 1))


@pytest.mark.parametrize("body", [b"RIFF" + b"\xff" * 60, b"fLaC" + b"\0" * 200, b"text", b"OggS" * 50])
def test_hostile_bytes_refuse_only_themselves(decoder: FrameDecoder, body: bytes) -> None:
    with pytest.raises(RefusedError):
        decoder(body, FrameFormat("wav", 16000, 1))
    assert decoder(encoded("WAV", "PCM_16")[0], FrameFormat("wav", 16000, 1))


def test_a_child_that_died_is_replaced(decoder: FrameDecoder) -> None:
    good = encoded("WAV", "PCM_16")[0]
    decoder(good, FrameFormat("wav", 16000, 1))
    decoder.close()
    assert decoder(good, FrameFormat("wav", 16000, 1))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_for_the_service_refuses_no_frame(decoder: FrameDecoder, number: int) -> None:
    """A service manager, or a terminal, may send it to all processes."""
    good, form = encoded("WAV", "PCM_16")[0], FrameFormat("wav", 16000, 1)
    decoder(good, form)
    before = decoder.pid
    assert before is not None
    os.kill(before, number)
    assert decoder(good, form)
    assert decoder.pid == before


def test_the_child_knows_nothing_of_its_parents_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords stand in it, and the child reads hostile bytes."""
    monkeypatch.setenv("KAPTION_KAFKA_PASSWORD", "open sesame")
    body, _ = encoded("FLAC", "PCM_16")
    child = FrameDecoder()
    try:
        assert child(body, FrameFormat("flac", 16000, 1))
        assert child.pid is not None
        assert b"KAPTION" not in Path(f"/proc/{child.pid}/environ").read_bytes()
    finally:
        child.close()
