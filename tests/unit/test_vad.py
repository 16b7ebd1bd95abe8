"""The voice detector finds speech, and nothing of another stream."""

from itertools import cycle

import numpy as np
import pytest

from bench.asterisk import prompt
from kaption.domain.decoding.port import VAD_FRAME, Audio
from kaption_gpu.engine.vad import SileroDetector
from tests.support.prompts import require_prompts


def _probabilities(detector: SileroDetector, audio: Audio) -> list[float]:
    frames = audio[: audio.size // VAD_FRAME * VAD_FRAME].reshape(-1, VAD_FRAME)
    return [detector(frame)[0] for frame in frames]


def _speech() -> Audio:
    require_prompts()
    return prompt("vm-options").audio()[: 4 * 16_000]


def test_speech_is_heard_and_silence_is_not() -> None:
    assert np.median(_probabilities(SileroDetector(), _speech())) > 0.8
    assert max(_probabilities(SileroDetector(), np.zeros(16_000, np.float32))) < 0.2


def test_streams_share_no_state_and_reset_forgets() -> None:
    speech = _speech()
    alone = _probabilities(SileroDetector(), speech)
    one, two = SileroDetector(), SileroDetector()
    noise = np.random.default_rng(0).normal(0, 0.1, speech.size).astype(np.float32)
    mixed = []
    for at in range(0, speech.size - VAD_FRAME + 1, VAD_FRAME):
        mixed += one(speech[at : at + VAD_FRAME])
        two(noise[at : at + VAD_FRAME])
    assert mixed == alone
    assert _probabilities(one, speech) != alone
    one.reset()
    assert _probabilities(one, speech) == alone


@pytest.mark.parametrize("counts", [(2,), (3,), (32,), (1, 2), (3, 1, 1, 33), (31, 5, 4)])
def test_frames_together_are_as_frames_alone(counts: tuple[int, ...]) -> None:
    speech, count = _speech(), cycle(counts)
    speech = speech[: speech.size // VAD_FRAME * VAD_FRAME]
    detector, together, at = SileroDetector(), list[float](), 0
    while at < speech.size:
        end = at + next(count) * VAD_FRAME
        together += detector(speech[at:end])
        at = end
    assert together == _probabilities(SileroDetector(), speech)


@pytest.mark.parametrize("samples", [0, 256])
def test_other_frames_are_refused(samples: int) -> None:
    with pytest.raises(ValueError, match="shape"):
        SileroDetector()(np.zeros(samples, np.float32))
