"""Pairs the fastest encoder on this machine with CTranslate2's decoder.

CTranslate2 or OpenVINO encodes. The faster one depends on the processor (AMX, bf16, VNNI), so at load each encodes a few
windows, on as many threads as the pool will use at once.
"""

import logging
import math
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import Any, Protocol
from typing import Final as Const

import ctranslate2
import numpy as np
import numpy.typing as npt
from faster_whisper import WhisperModel

from kaption.adapters.models.encoder_choice import Choice, choice_file, remembered
from kaption.adapters.models.weights import Weights, find_weights
from kaption.adapters.settings import Settings
from kaption.domain.decoding.port import WINDOW_SECONDS
from kaption_gpu.engine.backends.faster_whisper import CTranslate2Runtime, end_token, load_model
from kaption_gpu.engine.backends.openvino_encoder import OpenVinoEncoder, known_ranges, read_encoder
from kaption_gpu.engine.backends.runtime import MEL_RATE, Mel
from kaption_gpu.engine.backends.whisper import WhisperBackend
from kaption_gpu.engine.executor import SPARE

log = logging.getLogger(__name__)

#: Windows that each thread encodes per pass of a calibration, and passes; the first pass compiles.
_ROUNDS: Const = 4
_PASSES: Const = 4
#: Encoders that differ by a smaller factor are equally fast; the more exact one is chosen.
_TIE: Const = 1.1
#: The pair that is chosen if no encoders agree: the decoder's own runtime.
_OWN: Const = "faster-whisper"
#: The least correlation of the outputs of two correct encoders.
_ALIKE: Const = 0.95


class Encoder(Protocol):
    """Whisper's encoder. Several threads call it at once; no item may depend on the others of its batch."""

    @property
    def precision(self) -> str:
        """The precision of its arithmetic."""

    def encode(self, mel: Mel) -> npt.NDArray[np.float32]:
        """Encode ``mel``, shape (batch, mels, frames of 10 ms), to shape (batch, frames / 2, width)."""


class PairedRuntime(CTranslate2Runtime):
    """CTranslate2's decoder after another encoder."""

    def __init__(self, model: ctranslate2.models.Whisper, end: int, encoder: Encoder) -> None:
        super().__init__(model, end)
        self._encoder = encoder

    @property
    def precision(self) -> str:
        """The precision of the encoder, then of the decoder."""
        return f"{self._encoder.precision}/{super().precision}"

    def encode(self, mel: Mel) -> ctranslate2.StorageView:
        """Encode ``mel``."""
        return ctranslate2.StorageView.from_array(self._encoder.encode(mel))


def pairs(model: WhisperModel, weights: Weights, streams: int) -> dict[str, CTranslate2Runtime]:
    """Return the runtimes that these weights allow, by name, the most exact first: CTranslate2's decoder after each encoder."""
    encoder, end = read_encoder(weights.folder), end_token(model)
    found: dict[str, CTranslate2Runtime] = {
        "openvino": PairedRuntime(model.model, end, OpenVinoEncoder(encoder, streams)),
        "faster-whisper": CTranslate2Runtime(model.model, end),
    }
    ranges = known_ranges(weights.digest)
    if ranges is not None:
        found["openvino-int8"] = PairedRuntime(model.model, end, OpenVinoEncoder(encoder, streams, ranges=ranges))
    return found


class Encodes(Protocol):
    """The part of a runtime that is measured."""

    def encode(self, mel: Mel) -> Any:
        """Encode ``mel``; NumPy can read the output."""


def fastest(candidates: Mapping[str, Encodes], threads: int, bands: int) -> Choice:
    """Choose the pair with the fastest encoder (``choose``) among those that agree with another.

    All ``threads`` encode at once, as the pool will. Milliseconds are CPU time, not wall time, since the machine may be busy
    with other work and the choice is kept; the best pass counts.
    """
    rng = np.random.default_rng(0)
    mel = rng.normal(0, 0.5, (1, bands, WINDOW_SECONDS[0] * MEL_RATE)).astype(np.float32)
    took: dict[str, float] = {}
    right = agreeing({name: np.asarray(runtime.encode(mel)) for name, runtime in candidates.items()}) or {_OWN}
    if wrong := sorted(candidates.keys() - right):
        log.error("encoders_disagree", extra={"encoders": ",".join(wrong)})
    candidates = {name: runtime for name, runtime in candidates.items() if name in right}

    def encode(runtime: Encodes) -> None:
        for _ in range(_ROUNDS):
            runtime.encode(mel)

    with ThreadPoolExecutor(threads) as pool:
        for name, runtime in [*candidates.items()] * _PASSES:
            begin = time.process_time()
            list(pool.map(encode, [runtime] * threads))
            milliseconds = 1000 * (time.process_time() - begin) / (threads * _ROUNDS)
            took[name] = min(round(milliseconds, 1), took.get(name, math.inf))
    return Choice(choose(took), took)


def agreeing(features: Mapping[str, npt.NDArray[np.float32]]) -> set[str]:
    """Return the names of encoders whose output agrees with another's: a wrong kernel on this processor is never chosen.

    Precisions differ by 0.2 to 1.5 % (1 - correlation, on noise; tiny.en and base, without bf16).
    """
    found = set[str]()
    for (one, a), (other, b) in combinations(features.items(), 2):
        with np.errstate(invalid="ignore"):
            if np.corrcoef(a.ravel(), b.ravel())[0, 1] > _ALIKE:
                found |= {one, other}
    return found


def choose(milliseconds: Mapping[str, float]) -> str:
    """Return the fastest of pairs, or the most exact of those equally fast; they come the most exact first."""
    least = min(milliseconds.values())
    return next(name for name, took in milliseconds.items() if took <= _TIE * least)


def load(settings: Settings) -> WhisperBackend[ctranslate2.StorageView]:
    """Load ``settings.model`` with the pair that ``settings.backend`` names, or with the fastest for ``auto``.

    Raises:
        IncompatibleError: The alias has no weights.
        IncompatibleError: The weights have an unknown layout.
        ValueError: The pair needs activation ranges, and these weights have none.
    """
    weights = find_weights(settings)
    model = load_model(weights, settings.executors)
    candidates = pairs(model, weights, settings.executors + SPARE)
    name = settings.backend
    if name == "auto":
        bands = model.feature_extractor.mel_filters.shape[0]
        file = choice_file(settings, weights.digest)
        choice = remembered(file, lambda: fastest(candidates, settings.executors, bands))
        log.info("encoder_chosen", extra={"encoder": choice.name, "milliseconds": choice.milliseconds})
        name = choice.name
    if name not in candidates:
        raise ValueError(f"{name} has no activation ranges for these weights: use openvino, or run tools.ranges")
    return WhisperBackend(candidates[name], model.hf_tokenizer, model.feature_extractor, weights, name)
