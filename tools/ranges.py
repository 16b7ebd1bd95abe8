"""Measures the activation ranges for the int8 encoder and writes ``ranges.json``: ``python -m tools.ranges``.

A range holds all but one in 100,000 of a linear layer's activations over the shipped speech. A layer that alone changes the
encoder's output by more than ``WORST`` gets none and computes in the processor's other precision: a few huge activations
leave too few levels for the rest.
"""

import json
from pathlib import Path

import numpy as np
import openvino as ov
import soundfile
import soxr
from faster_whisper.feature_extractor import FeatureExtractor

from kaption.adapters.models.weights import find_weights
from kaption.adapters.settings import Settings
from kaption.domain.decoding.port import SAMPLE_RATE
from kaption_gpu.engine.backends.openvino_encoder import EncoderWeights, Graph, OpenVinoEncoder, read_encoder
from kaption_gpu.engine.backends.runtime import Mel

ROOT = Path(__file__).resolve().parents[1]
ALIASES = ("tiny.en", "base")
WORST = 0.02
_SHARE = 100 - 0.001
_WINDOW, _SPOKEN = 8 * SAMPLE_RATE, 6 * SAMPLE_RATE


def mels(bands: int) -> list[Mel]:
    """Make windows of 8 s with 6 s of the shipped speech in each, shape (1, bands, 800)."""
    extractor = FeatureExtractor(feature_size=bands)
    found: list[Mel] = []
    for file in sorted((ROOT / "demo" / "speech").glob("*.flac")):
        pcm, rate = soundfile.read(file, dtype="float32", always_2d=True)
        audio = soxr.resample(pcm[:, 0], rate, SAMPLE_RATE)
        for at in range(0, len(audio) - _SPOKEN, _SPOKEN):
            window = np.zeros(_WINDOW, np.float32)
            window[:_SPOKEN] = audio[at : at + _SPOKEN]
            found.append(np.asarray(extractor(window, padding=0), np.float32)[None])
    return found


def measured(weights: EncoderWeights, speech: list[Mel]) -> dict[str, tuple[float, float]]:
    """Return the range of each layer's input over ``speech``."""
    graph = Graph(weights)
    model = graph.build(speech[0].shape[2], with_taps=True)
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    lows, highs = dict.fromkeys(graph.taps, 0.0), dict.fromkeys(graph.taps, 0.0)
    for mel in speech:
        for name, values in zip(graph.taps, list(compiled(mel).values())[1:], strict=True):
            low, high = np.percentile(values, (100 - _SHARE, _SHARE))
            lows[name], highs[name] = min(lows[name], float(low)), max(highs[name], float(high))
    return {name: (round(lows[name], 4), round(highs[name], 4)) for name in graph.taps}


def error(weights: EncoderWeights, ranges: dict[str, tuple[float, float]], speech: list[Mel]) -> float:
    """Return the mean relative error of the encoder's output with ``ranges`` in int8 and the rest in float32."""
    exact, rounded = (OpenVinoEncoder(weights, 1, "f32", given) for given in (None, ranges))
    found = [(exact.encode(mel), rounded.encode(mel)) for mel in speech]
    return float(np.mean([np.abs(a - b).mean() / np.abs(a).mean() for a, b in found]))


def main() -> None:
    """Measure both packaged models."""
    out: dict[str, dict[str, tuple[float, float]]] = {}
    for alias in ALIASES:
        found = find_weights(Settings(model=alias))
        weights = read_encoder(found.folder)
        speech = mels(weights.mels)
        ranges = measured(weights, speech)
        few = speech[::6]
        alone = {name: error(weights, {name: value}, few) for name, value in ranges.items()}
        kept = {name: value for name, value in ranges.items() if alone[name] <= WORST}
        left = ", ".join(f"{name} {alone[name]:.3f}" for name in ranges if name not in kept)
        print(f"{alias}: {len(kept)} layers, error {error(weights, kept, few):.3f}; left out: {left or 'none'}")
        out[found.digest] = kept
    target = ROOT / "gpu_service" / "kaption_gpu" / "engine" / "backends" / "ranges.json"
    target.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
