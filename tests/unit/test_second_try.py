"""When a final is in doubt: decoded again by beam, or in a longer window; the better try stands."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from faster_whisper.feature_extractor import FeatureExtractor
from tokenizers import Tokenizer

from kaption.adapters.models.weights import find_weights
from kaption.adapters.settings import Settings
from kaption.domain.decoding.port import SAMPLE_RATE, Decoded, DecodeOptions, Kind, Window, window_length
from kaption_gpu.engine.backends.runtime import Hypothesis, Mel, TokenTimes
from kaption_gpu.engine.backends.whisper import WhisperBackend

WEIGHTS = find_weights(Settings())
TOKENIZER = Tokenizer.from_file(str(WEIGHTS.folder / "tokenizer.json"))
FIRST_TIMESTAMP = int(TOKENIZER.token_to_id("<|notimestamps|>") or 0) + 1
ONCE = "The first thing to learn is to listen."
TWICE = f"{ONCE} {ONCE}"


@dataclass
class ScriptedRuntime:
    """Says a text that depends on beam and window, and notes what it was asked for."""

    multilingual = False
    precision = "none"
    says: dict[tuple[int, int], str]
    asked: list[tuple[int, int]] = field(default_factory=list)

    def encode(self, mel: Mel) -> Mel:
        """The mel itself."""
        return mel

    def select(self, features: Mel, rows: Sequence[int]) -> Mel:
        """Those rows."""
        return features[list(rows)]

    def detect(self, features: Mel) -> list[str]:
        """English."""
        return ["en"] * len(features)

    def generate(
        self,
        features: Mel,
        prompts: Sequence[Sequence[int]],
        *,
        beam_size: int,
        max_new: int,
        endless: bool = False,  # the port's signature
    ) -> list[Hypothesis]:
        """What the script has for this beam and these seconds of window."""
        self.asked.append((beam_size, features.shape[2] // 100))
        text = self.says[self.asked[-1]]
        tokens = (FIRST_TIMESTAMP, *TOKENIZER.encode(f" {text}", add_special_tokens=False).ids, FIRST_TIMESTAMP + 200)
        return [Hypothesis(tokens, -0.2, 0.01)] * len(prompts)

    def align(
        self, features: Mel, start: Sequence[int], texts: Sequence[Sequence[int]], frames: Sequence[int]
    ) -> list[TokenTimes | None]:
        """Nothing is known of times."""
        return [None] * len(texts)


def decode(runtime: ScriptedRuntime, kind: Kind, beam_size: int, seconds: int = 5) -> Decoded:
    audio = np.random.default_rng(0).normal(0, 0.1, seconds * SAMPLE_RATE).astype(np.float32)
    backend = WhisperBackend(runtime, TOKENIZER, FeatureExtractor(), WEIGHTS, "scripted")
    options = DecodeOptions(beam_size=beam_size)
    return backend.transcribe([Window(0, kind, audio, window_length(audio.size), options)])[0]


def test_a_greedy_final_in_doubt_is_decoded_by_beam() -> None:
    runtime = ScriptedRuntime({(1, 8): TWICE, (5, 8): ONCE})
    decoded = decode(runtime, Kind.FINAL, 1)
    assert (decoded.text, decoded.fallback) == (ONCE, "repetition")
    assert runtime.asked == [(1, 8), (5, 8)]


def test_one_by_beam_is_decoded_in_the_next_longer_window() -> None:
    runtime = ScriptedRuntime({(5, 8): TWICE, (5, 12): ONCE})
    decoded = decode(runtime, Kind.FINAL, 5)
    assert (decoded.text, decoded.fallback) == (ONCE, "repetition")
    assert runtime.asked == [(5, 8), (5, 12)]


def test_one_in_the_longest_window_is_not_decoded_the_same_way_again() -> None:
    runtime = ScriptedRuntime({(5, 30): TWICE})
    assert decode(runtime, Kind.FINAL, 5, seconds=25).text == TWICE
    assert runtime.asked == [(5, 30)]


def test_what_was_really_said_twice_stands() -> None:
    runtime = ScriptedRuntime({(5, 8): TWICE, (5, 12): TWICE})
    assert decode(runtime, Kind.FINAL, 5).text == TWICE


def test_no_other_final_and_no_partial_is_decoded_again() -> None:
    for kind, text in ((Kind.FINAL, ONCE), (Kind.PARTIAL, TWICE)):
        runtime = ScriptedRuntime({(1, 8): text})
        assert decode(runtime, kind, 1).text == text
        assert runtime.asked == [(1, 8)]
