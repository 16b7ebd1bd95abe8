"""How a Whisper backend uses its runtime, and which backends there are."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from ctranslate2 import StorageView

from kaption.adapters.models.weights import find_weights
from kaption.adapters.settings import Settings
from kaption.domain.decoding.port import SAMPLE_RATE, DecodeOptions, Kind, Window, window_length
from kaption_gpu.engine.backends import make_backend
from kaption_gpu.engine.backends.faster_whisper import CTranslate2Runtime, end_token, load_model
from kaption_gpu.engine.backends.runtime import Hypothesis
from kaption_gpu.engine.backends.whisper import WhisperBackend
from tests.support.prompts import require_prompts


class CountingRuntime(CTranslate2Runtime):
    """Counts its decodes."""

    calls = 0

    def generate(
        self,
        features: StorageView,
        prompts: Sequence[Sequence[int]],
        *,
        beam_size: int,
        max_new: int,
        endless: bool = False,
    ) -> list[Hypothesis]:
        self.calls += 1
        return super().generate(features, prompts, beam_size=beam_size, max_new=max_new, endless=endless)


@pytest.mark.parametrize("beam_size", [1, 5], ids=["greedy", "beam"])
def test_windows_of_one_length_are_decoded_at_once(beam_size: int, tmp_path: Path) -> None:
    """As a session asks for them: partials' limits follow from their audio, finals' from the window."""
    settings = Settings(data=tmp_path)
    weights, counting = find_weights(settings), load_model(find_weights(settings), 1)
    runtime = CountingRuntime(counting.model, end_token(counting))
    backend = WhisperBackend(runtime, counting.hf_tokenizer, counting.feature_extractor, weights, "counting")
    audio = next(p.audio() for p in require_prompts(4) if p.audio().size <= 6 * SAMPLE_RATE)
    options = DecodeOptions(language="en", beam_size=beam_size)
    limits = (30, 40, 58) if beam_size == 1 else (options.max_tokens,) * 3
    kind, padded = (Kind.FINAL if beam_size > 1 else Kind.PARTIAL), window_length(audio.size)
    windows = [Window(0, kind, audio, padded, replace(options, max_tokens=limit)) for limit in limits]
    backend.transcribe(windows)
    assert runtime.calls == 1


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="no backend"):
        make_backend(Settings(backend="nonesuch"))
