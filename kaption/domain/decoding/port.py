"""Defines the port between sessions, planner and backends: a window to decode and its result.

Audio is mono float32 at 16 kHz, in [-1, 1]. Nothing here knows which runtime computes.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16_000
#: Most tokens of text in Whisper's decoder.
LONGEST_TEXT = 224
#: One voice-detection frame: 512 samples, 32 ms. Segment boundaries are multiples of it.
VAD_FRAME = 512

Audio = npt.NDArray[np.float32]


class Kind(StrEnum):
    """The purpose of a decode. The planner takes due finals before partials."""

    FINAL = "final"
    PARTIAL = "partial"


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """Everything that decides a decode's text, apart from audio and length.

    ``prompt`` is earlier text of the run and ``vocabulary`` its names; the backend budgets both to about 150 tokens
    together (HAZARDS, Whisper 1). ``language`` is a code or None to detect it. ``max_tokens`` bounds loops.
    """

    language: str | None = None
    task: str = "transcribe"
    prompt: str = ""
    vocabulary: tuple[str, ...] = ()
    beam_size: int = 1
    word_times: bool = False
    max_tokens: int = LONGEST_TEXT


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """One piece of audio to decode.

    ``id`` is the session's, and the result carries it; ``audio`` has shape (n,), n <= 30 s; ``padded`` is the window's
    length in samples, which follows from ``audio`` alone (``window_length``), never from the batch.
    """

    id: int
    kind: Kind
    audio: Audio
    padded: int
    options: DecodeOptions


@dataclass(frozen=True, slots=True)
class DecodedWord:
    """A word as the model writes it (leading space kept), seconds from the window's start, probability 0-1."""

    text: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True, slots=True)
class Decoded:
    """The result of a window. ``words`` is empty unless the options request word times; ``text`` is stripped.

    ``suppressed`` names the guard that emptied ``text``, ``fallback`` the guard that caused a second try, if any.
    """

    text: str
    language: str | None
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    words: tuple[DecodedWord, ...] = ()
    suppressed: str | None = None
    fallback: str | None = None


class VoiceDetector(Protocol):
    """Gives the speech probability of consecutive frames of one stream, bit-equal for any number of frames per call."""

    def __call__(self, frames: Audio) -> list[float]:
        """Return the probability of speech in each of ``frames``, shape (n * 512,), float32, in order."""

    def reset(self) -> None:
        """Forget all frames: the next one is a stream's first."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Loaded weights: alias, digest of the weight file, backend's name, abilities, and the precision of their arithmetic."""

    alias: str
    digest: str
    backend: str
    languages: frozenset[str] = field(default_factory=frozenset)
    tasks: frozenset[str] = frozenset({"transcribe"})
    precision: str = ""


@dataclass(frozen=True, slots=True)
class Costs:
    """The cost of a batch. ``a_second``: device seconds of one more window, per second of its padded length. ``fixed``: the
    cost apart from windows, in windows: the decoder reads its weights once for all of them.

    The defaults are tiny.en's on a processor of 2026, measured with 8 s and 1 to 8 greedy windows.
    """

    a_second: float = 0.01
    fixed: float = 0.7


class Backend(Protocol):
    """A model on a device. ``transcribe`` is called from worker threads; a batch's windows share padded length and kind."""

    info: ModelInfo

    def warm_up(self) -> None:
        """Decode once at each window length of live segments, so that the first caption does not wait."""

    def calibrate(self, size: int) -> Costs:
        """Measure batches of up to ``size`` windows; call it on as many threads at once as will decode."""

    def transcribe(self, batch: list[Window]) -> list[Decoded]:
        """Decode ``batch``; results in its order. The other windows must not change a final's text (promise 4)."""


#: Window lengths in seconds. Few, since every new shape has a cost in a runtime.
WINDOW_SECONDS = (6, 8, 12, 18, 24, 30)
#: Shortest windows in seconds: Whisper repeats itself in shorter ones, but such a partial is soon replaced.
FLOOR_SECONDS = {Kind.FINAL: 8, Kind.PARTIAL: 6}


def window_length(samples: int, kind: Kind = Kind.FINAL) -> int:
    """Return the padded length in samples of ``samples``: the first of ``WINDOW_SECONDS`` with 2 s to spare, else 30 s."""
    for seconds in WINDOW_SECONDS:
        if seconds >= FLOOR_SECONDS[kind] and samples + 2 * SAMPLE_RATE <= seconds * SAMPLE_RATE:
            return seconds * SAMPLE_RATE
    return WINDOW_SECONDS[-1] * SAMPLE_RATE
