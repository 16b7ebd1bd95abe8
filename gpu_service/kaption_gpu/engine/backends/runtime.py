"""Defines the port between Whisper's decoding policy (whisper.py) and a runtime: encode, detect, generate, align.

A runtime's ``generate`` knows no guard, prompt rule or window; runtimes differ only in arithmetic.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Mel = npt.NDArray[np.float32]
#: Encoder output of a batch, in the runtime's own form.
F = TypeVar("F")
#: Frames of mel a second.
MEL_RATE = 100
#: Seconds per timestamp token and per encoder position.
TIME_STEP = 0.02


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """The best output of one item: its tokens, with timestamps and without the end token, and its figures."""

    tokens: tuple[int, ...]
    avg_logprob: float
    no_speech_prob: float


@dataclass(frozen=True, slots=True)
class TokenTimes:
    """Times of n text tokens: the start of each and the end of the last in seconds (n + 1); the probability of each (n)."""

    starts: npt.NDArray[np.float64]
    probabilities: npt.NDArray[np.float64]


class Runtime(Protocol[F]):
    """Whisper's network on a device. Several threads call it at once."""

    @property
    def multilingual(self) -> bool:
        """Whether the weights know more languages and tasks than English transcription."""

    @property
    def precision(self) -> str:
        """The precision on this machine, such as ``bf16``; texts may differ between machines where it differs."""

    def encode(self, mel: Mel) -> F:
        """Encode ``mel``, shape (batch, mels, frames of 10 ms)."""

    def select(self, features: F, rows: Sequence[int]) -> F:
        """Return the items ``rows`` of ``features``."""

    def detect(self, features: F) -> list[str]:
        """Return the likeliest language code of each item; multilingual weights only."""

    def generate(
        self, features: F, prompts: Sequence[Sequence[int]], *, beam_size: int, max_new: int, endless: bool = False
    ) -> list[Hypothesis]:
        """Decode each item after its prompt for up to ``max_new`` tokens. Prompts include the start sequence; their lengths are
        equal.

        ``endless``: decode exactly ``max_new`` tokens for any audio, to measure the time of a token.
        """

    def align(
        self, features: F, start: Sequence[int], texts: Sequence[Sequence[int]], frames: Sequence[int]
    ) -> list[TokenTimes | None]:
        """Return when each token of ``texts`` is said, None if unknown. ``frames``: those of 10 ms that are not padding."""
