"""An encoder and a decoder that need not be of one runtime, and the choice of the pair that is fastest on this machine.

CTranslate2 decodes; it or OpenVINO encodes. Which is faster depends on the processor (AMX, bf16, VNNI), so a few windows
are encoded by each at load, on as many threads as the pool will use at once.
"""

import logging
import math
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final as Const
from typing import Protocol

import ctranslate2
import numpy as np
import numpy.typing as npt
from faster_whisper import WhisperModel

from kaption.adapters.encoder_choice import Choice, choice_file, processor, remembered
from kaption.adapters.settings import Settings
from kaption.domain.decoding import WINDOW_SECONDS
from kaption_gpu.backends.faster_whisper import CTranslate2Runtime, end_token, load_model
from kaption_gpu.backends.openvino_encoder import OpenVinoEncoder, known_ranges, read_encoder
from kaption_gpu.backends.runtime import Mel
from kaption_gpu.backends.whisper import WhisperBackend
from kaption_gpu.executor import SPARE
from kaption_gpu.weights import Weights, find_weights

log = logging.getLogger(__name__)

#: Windows that each thread encodes in a pass of a calibration, and passes: the first one compiles.
_ROUNDS: Const = 4
_PASSES: Const = 4
_MEL_FRAMES: Const = 100  # a second
#: Encoders that differ by less are equally fast: then the more exact one is taken.
_TIE: Const = 1.1


class Encoder(Protocol):
    """Whisper's encoder. Called from several threads at once; an item must not depend on its company."""

    def encode(self, mel: Mel) -> npt.NDArray[np.float32]:
        """Encoder output, shape (batch, frames / 2, width), of ``mel``, shape (batch, mels, frames of 10 ms)."""


class PairedRuntime(CTranslate2Runtime):
    """CTranslate2's decoder behind another encoder."""

    def __init__(self, model: ctranslate2.models.Whisper, end: int, encoder: Encoder) -> None:
        super().__init__(model, end)
        self._encoder = encoder

    def encode(self, mel: Mel) -> ctranslate2.StorageView:
        """Encoder output of ``mel``."""
        return ctranslate2.StorageView.from_array(self._encoder.encode(mel))


def pairs(model: WhisperModel, weights: Weights, streams: int) -> dict[str, CTranslate2Runtime]:
    """The runtimes that these weights allow, by name, the most exact first: each is CTranslate2's decoder behind an encoder."""
    encoder, end = read_encoder(weights.folder), end_token(model)
    found: dict[str, CTranslate2Runtime] = {
        "openvino": PairedRuntime(model.model, end, OpenVinoEncoder(encoder, streams)),
        "faster-whisper": CTranslate2Runtime(model.model, end),
    }
    ranges = known_ranges(weights.digest)
    if ranges is not None:
        found["openvino-int8"] = PairedRuntime(model.model, end, OpenVinoEncoder(encoder, streams, ranges=ranges))
    return found


def fastest(candidates: dict[str, CTranslate2Runtime], threads: int, bands: int) -> Choice:
    """The pair whose encoder takes the least time, see ``choose``.

    All ``threads`` encode at once, as the pool will. Milliseconds are the processor's, not the clock's, since the machine may
    be busy with others while the choice, which is remembered, is made; the best pass counts.
    """
    rng = np.random.default_rng(0)
    mel = rng.normal(0, 0.5, (1, bands, WINDOW_SECONDS[0] * _MEL_FRAMES)).astype(np.float32)
    took: dict[str, float] = {}

    def encode(runtime: CTranslate2Runtime) -> None:
        for _ in range(_ROUNDS):
            runtime.encode(mel)

    with ThreadPoolExecutor(threads) as pool:
        for name, runtime in [*candidates.items()] * _PASSES:
            begin = time.process_time()
            list(pool.map(encode, [runtime] * threads))
            milliseconds = 1000 * (time.process_time() - begin) / (threads * _ROUNDS)
            took[name] = min(round(milliseconds, 1), took.get(name, math.inf))
    return Choice(choose(took), processor(), took)


def choose(milliseconds: Mapping[str, float]) -> str:
    """The fastest of pairs, given the most exact first; of those that hardly differ from it, the most exact."""
    least = min(milliseconds.values())
    return next(name for name, took in milliseconds.items() if took <= _TIE * least)


def load(settings: Settings) -> WhisperBackend[ctranslate2.StorageView]:
    """Load ``settings.model`` with the pair that ``settings.backend`` names, or with the fastest for ``auto``.

    Raises:
        WeightsError: There are no weights for the alias.
        WeightFileError: They are in a layout that is not known.
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
        log.info("An encoder was chosen", extra={"encoder": choice.name, "milliseconds": choice.milliseconds})
        name = choice.name
    if name not in candidates:
        raise ValueError(f"{name} has no activation ranges for these weights: use openvino, or run tools.ranges")
    return WhisperBackend(candidates[name], model.hf_tokenizer, model.feature_extractor, weights, name)
