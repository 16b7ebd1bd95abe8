"""Fakes for the domain's ports: a voice detector by energy, a redactor of digit runs, and decodes that spell samples."""

import re

import numpy as np

from kaption.domain.decoding.port import VAD_FRAME, Audio, Decoded, DecodedWord, ModelInfo, Window
from kaption.domain.redaction.matches import Match

MODEL = ModelInfo("fake", "0" * 64, "fake", frozenset({"en"}), frozenset({"transcribe"}))


class EnergyDetector:
    """Takes loud frames for speech. It has a memory, so that a missing reset shows."""

    def __init__(self) -> None:
        self.level = 0.0

    def __call__(self, frames: Audio) -> list[float]:
        return [self._hear(frame) for frame in frames.reshape(-1, VAD_FRAME)]

    def _hear(self, frame: Audio) -> float:
        loud = float(np.sqrt(np.mean(frame**2)) > 0.01)
        self.level = 0.8 * self.level + 0.2 * loud
        return self.level

    def reset(self) -> None:
        self.level = 0.0


class DigitRedactor:
    """Finds six digits in a row as a NUMBER."""

    def find(self, text: str, entities: tuple[str, ...]) -> tuple[Match, ...]:
        return tuple(Match("NUMBER", m.start(), m.end()) for m in re.finditer(r"\d(?: ?\d){5}", text) if entities)

    def open_suffix(self, text: str, entities: tuple[str, ...]) -> int:
        found = re.search(r"[\d ]*\d[\d ]*$", text) if entities else None
        return found.start() if found else len(text)


def spell(window: Window) -> Decoded:
    """Make a decode that depends on every sample, the prompt and the padding, so that any difference shows."""
    audio = (window.audio * 32768).round().astype(np.int64)
    text = f"n{len(audio)} s{int(np.abs(audio).sum())} p{len(window.options.prompt)} w{window.padded}"
    step = len(audio) / 16000 / 4
    words = tuple(DecodedWord(f" {w}", i * step, (i + 1) * step, 0.9) for i, w in enumerate(text.split()))
    return Decoded(text, "en", -0.2, 0.01, 1.1, words)
