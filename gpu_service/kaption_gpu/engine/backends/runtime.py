"""The port between Whisper's decoding policy (whisper.py) and what computes: encode, detect, generate, align.

A runtime's ``generate`` knows no guard, prompt rule or window; two runtimes differ in arithmetic only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Mel = npt.NDArray[np.float32]
#: Encoder output of a batch, in whatever form a runtime keeps it.
F = TypeVar("F")
#: Frames of mel a second.
MEL_RATE = 100
#: Seconds a timestamp token, or an encoder position, stands for.
TIME_STEP = 0.02


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """The best output of one item: tokens with timestamps and without the end token, and its figures."""

    tokens: tuple[int, ...]
    avg_logprob: float
    no_speech_prob: float


@dataclass(frozen=True, slots=True)
class TokenTimes:
    """Of n text tokens: when each starts, and when the last ends, in seconds (n + 1); probability of each (n)."""

    starts: npt.NDArray[np.float64]
    probabilities: npt.NDArray[np.float64]


class Runtime(Protocol[F]):
    """Whisper's network on a device. Called from several threads at once."""

    @property
    def multilingual(self) -> bool:
        """Whether the weights know languages and tasks besides English transcription."""

    @property
    def precision(self) -> str:
        """What it computes in here, such as ``bf16``: texts may differ between machines where it does."""

    def encode(self, mel: Mel) -> F:
        """Encoder output of ``mel``, shape (batch, mels, frames of 10 ms)."""

    def select(self, features: F, rows: Sequence[int]) -> F:
        """The items ``rows`` of ``features``."""

    def detect(self, features: F) -> list[str]:
        """The likeliest language code of each item; multilingual weights only."""

    def generate(
        self, features: F, prompts: Sequence[Sequence[int]], *, beam_size: int, max_new: int, endless: bool = False
    ) -> list[Hypothesis]:
        """Decode each item after its prompt (start sequence included, equal lengths) for up to ``max_new`` tokens.

        ``endless``: for as many, whatever is heard; to measure what a token takes.
        """

    def align(
        self, features: F, start: Sequence[int], texts: Sequence[Sequence[int]], frames: Sequence[int]
    ) -> list[TokenTimes | None]:
        """When each token of ``texts`` is said; ``frames``: of 10 ms that are not padding. None if it cannot be told."""
