"""An encoder and a decoder that need not be of one runtime, and the choice of the pair that is fastest on this machine.

CTranslate2 decodes; it or OpenVINO encodes. Which is faster depends on the processor (AMX, bf16, VNNI), so a few windows
are encoded by each at load, on as many threads as the pool will use at once.
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final as Const
from typing import Protocol

import ctranslate2
import numpy as np
import numpy.typing as npt
from faster_whisper import WhisperModel

from kaption.adapters.settings import Settings
from kaption.domain.decoding import WINDOW_SECONDS
from kaption_gpu.backends.faster_whisper import CTranslate2Runtime, load_model
from kaption_gpu.backends.openvino_encoder import OpenVinoEncoder, known_ranges, read_encoder
from kaption_gpu.backends.runtime import Mel
from kaption_gpu.backends.whisper import WhisperBackend
from kaption_gpu.weights import Weights, find_weights

log = logging.getLogger(__name__)

#: Windows that each thread encodes in a pass of a calibration, and passes, so that one busy moment decides nothing.
_ROUNDS: Const = 4
_PASSES: Const = 3
_MEL_FRAMES: Const = 100  # a second


class Encoder(Protocol):
    """Whisper's encoder. Called from several threads at once; an item must not depend on its company."""

    def encode(self, mel: Mel) -> npt.NDArray[np.float32]:
        """Encoder output, shape (batch, frames / 2, width), of ``mel``, shape (batch, mels, frames of 10 ms)."""


class PairedRuntime(CTranslate2Runtime):
    """CTranslate2's decoder behind another encoder."""

    def __init__(self, model: ctranslate2.models.Whisper, encoder: Encoder) -> None:
        super().__init__(model)
        self._encoder = encoder

    def encode(self, mel: Mel) -> ctranslate2.StorageView:
        """Encoder output of ``mel``."""
        return ctranslate2.StorageView.from_array(self._encoder.encode(mel))


@dataclass(frozen=True, slots=True)
class Pair:
    """One way to compute: its name as transcripts tell it, and its runtime."""

    name: str
    runtime: CTranslate2Runtime


def pairs(model: WhisperModel, weights: Weights, streams: int, *, only_openvino: bool) -> list[Pair]:
    """The pairs that this machine and these weights allow; the first is the one that was there before the others."""
    found = [] if only_openvino else [Pair("faster-whisper", CTranslate2Runtime(model.model))]
    encoder = read_encoder(weights.folder)
    found.append(Pair("openvino", PairedRuntime(model.model, OpenVinoEncoder(encoder, streams))))
    ranges = known_ranges(weights.digest)
    if ranges is not None:
        rounded = OpenVinoEncoder(encoder, streams, ranges=ranges)
        found.append(Pair("openvino-int8", PairedRuntime(model.model, rounded)))
    return found


@dataclass(frozen=True, slots=True)
class Choice:
    """The pair that was chosen on this processor, and the milliseconds that an item of 8 s took with each."""

    name: str
    processor: str
    milliseconds: dict[str, float]


def remembered(file: Path, measure: Callable[[], Choice]) -> Choice:
    """The choice in ``file``, or what ``measure`` says, written there.

    Workers of one machine choose alike, and a restarted one as before, so that a replay decodes as the first time did.
    """
    for _ in range(2):
        with contextlib.suppress(OSError, ValueError, TypeError):
            found = Choice(**json.loads(file.read_text()))
            if found.processor == _processor():
                return found
            file.unlink()
        choice = measure()
        file.parent.mkdir(parents=True, exist_ok=True)
        made = file.with_suffix(f".{os.getpid()}")
        made.write_text(json.dumps(asdict(choice)))
        try:
            os.link(made, file)
        except FileExistsError:
            continue  # another worker was faster: as it chose
        finally:
            made.unlink()
        return choice
    return choice


def _processor() -> str:
    """What decides which kernels run: a data folder may be carried to another machine."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return hashlib.sha256(
            "".join(sorted({x for x in lines if x.startswith(("model name", "flags"))})).encode()
        ).hexdigest()[:16]
    return platform.machine()


def fastest(candidates: list[Pair], threads: int, bands: int) -> Choice:
    """The pair whose encoder takes the least time.

    All ``threads`` encode at once, as the pool will; the best round counts, since the machine may be busy.
    """
    rng = np.random.default_rng(0)
    mel = rng.normal(0, 0.5, (1, bands, WINDOW_SECONDS[0] * _MEL_FRAMES)).astype(np.float32)
    took: dict[str, float] = {}
    with ThreadPoolExecutor(threads) as pool:
        for pair in candidates * _PASSES:
            rounds = pool.map(lambda encode: _best(lambda: encode(mel)), [pair.runtime.encode] * threads)
            took[pair.name] = min(round(1000 * max(rounds), 1), took.get(pair.name, math.inf))
    return Choice(min(took, key=took.__getitem__), _processor(), took)


def _best(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(_ROUNDS):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def load(settings: Settings) -> WhisperBackend[ctranslate2.StorageView]:
    """Load ``settings.model`` with the fastest pair: of all for ``auto``, of those with OpenVINO's encoder for ``openvino``.

    Raises:
        WeightsError: There are no weights for the alias.
        WeightFileError: They are in a layout that is not known.
    """
    weights = find_weights(settings)
    model = load_model(weights, settings.executors)
    candidates = pairs(model, weights, settings.executors, only_openvino=settings.backend == "openvino")

    def measure() -> Choice:
        return fastest(candidates, settings.executors, model.feature_extractor.mel_filters.shape[0])

    name = f"{settings.backend}-{weights.digest.removeprefix('sha256:')[:16]}.json"
    choice = remembered(settings.data / "encoders" / name, measure)
    log.info("An encoder was chosen", extra={"encoder": choice.name, "milliseconds": choice.milliseconds})
    chosen = next(pair for pair in candidates if pair.name == choice.name)
    return WhisperBackend(chosen.runtime, model.hf_tokenizer, model.feature_extractor, weights, chosen.name)
