"""Runs CTranslate2 alone, loaded by faster-whisper, where no other encoder is faster: int8, one thread per batch in flight.

Two one-thread workers do about twice the work of one two-thread worker, and int8 with one thread gives a window
the same text in every batch (measured; promise 4).
"""

from collections.abc import Sequence
from typing import Any

import ctranslate2
import numpy as np
from faster_whisper import WhisperModel

from kaption.adapters.models.weights import Weights, find_weights
from kaption.adapters.settings import Settings
from kaption_gpu.engine.backends.runtime import TIME_STEP, Hypothesis, Mel, TokenTimes
from kaption_gpu.engine.backends.whisper import WhisperBackend
from kaption_gpu.engine.executor import SPARE

#: Positions of Whisper's decoder.
MAX_LENGTH = 448
#: Whisper's own list of tokens that are no speech.
_SUPPRESSED = [-1]


class CTranslate2Runtime:
    """A ``Runtime`` on CTranslate2; features are its storage views, shape (batch, frames / 2, width)."""

    def __init__(self, model: ctranslate2.models.Whisper, end: int) -> None:
        """``end``: the token that ends a text."""
        self._model = model
        self._cuda = model.device == "cuda"
        self._end = end

    @property
    def multilingual(self) -> bool:
        """Whether the weights know more languages than English."""
        return bool(self._model.is_multilingual)

    @property
    def precision(self) -> str:
        """The precision of the weights' arithmetic; the rest is float32."""
        return str(self._model.compute_type).split("_", maxsplit=1)[0]

    def encode(self, mel: Mel) -> ctranslate2.StorageView:
        """Encode ``mel``; windows shorter than 30 s use the first positions."""
        return self._model.encode(ctranslate2.StorageView.from_array(np.ascontiguousarray(mel)), to_cpu=self._cuda)

    def select(self, features: ctranslate2.StorageView, rows: Sequence[int]) -> ctranslate2.StorageView:
        """Return the items ``rows``; the whole batch without a copy."""
        if list(rows) == list(range(features.shape[0])):
            return features
        return ctranslate2.StorageView.from_array(np.ascontiguousarray(np.asarray(features)[list(rows)]))

    def detect(self, features: ctranslate2.StorageView) -> list[str]:
        """Return the likeliest language of each item; CTranslate2 writes it as ``<|en|>``."""
        return [str(ranked[0][0])[2:-2] for ranked in self._model.detect_language(features)]

    def generate(
        self,
        features: ctranslate2.StorageView,
        prompts: Sequence[Sequence[int]],
        *,
        beam_size: int,
        max_new: int,
        endless: bool = False,
    ) -> list[Hypothesis]:
        """Decode each item."""
        # CTranslate2 limits the output to half of max_length, however short the prompt is.
        limit = min(MAX_LENGTH, max(2 * max_new, len(prompts[0]) + max_new))
        results = self._model.generate(
            features,
            [list(prompt) for prompt in prompts],
            beam_size=beam_size,
            max_length=limit,
            return_scores=True,
            return_no_speech_prob=True,
            suppress_tokens=[*_SUPPRESSED, self._end] if endless else _SUPPRESSED,
        )
        return [_hypothesis(result) for result in results]

    def align(
        self,
        features: ctranslate2.StorageView,
        start: Sequence[int],
        texts: Sequence[Sequence[int]],
        frames: Sequence[int],
    ) -> list[TokenTimes | None]:
        """Return when each token is said, by the cross attention of the alignment heads.

        It aligns one item per call: unlike ``generate``, its results depend on the lengths of a batch's other texts.
        """
        found: list[TokenTimes | None] = []
        for row, (text, length) in enumerate(zip(texts, frames, strict=True)):
            result = self._model.align(self.select(features, [row]), list(start), [list(text)], length)[0]
            found.append(_token_times(result, len(text)))
        return found


def _hypothesis(result: Any) -> Hypothesis:
    tokens = tuple(result.sequences_ids[0])
    # The score is a mean over the text tokens; Whisper's figure counts the end token too.
    logprob = result.scores[0] * len(tokens) / (len(tokens) + 1)
    return Hypothesis(tokens, float(logprob), float(result.no_speech_prob))


def _token_times(result: Any, count: int) -> TokenTimes | None:
    """Return the start of each token, and of the end token, which ends the last, by the path of tokens and positions."""
    path = np.asarray(result.alignments, dtype=np.int64).reshape(-1, 2)
    starts = path[np.diff(path[:, 0], prepend=-1).astype(bool), 1] * TIME_STEP
    if len(starts) != count + 1:
        return None
    return TokenTimes(starts, np.asarray(result.text_token_probs, dtype=np.float64))


def load_model(weights: Weights, executors: int) -> WhisperModel:
    """Load the weights in int8 for ``executors`` batches in flight and the spare executors, each on one thread."""
    return WhisperModel(
        str(weights.folder), device="cpu", compute_type="int8", cpu_threads=1, num_workers=executors + SPARE
    )


def end_token(model: WhisperModel) -> int:
    """Return the token that ends a text."""
    return int(model.hf_tokenizer.token_to_id("<|endoftext|>"))


def load(settings: Settings) -> WhisperBackend[ctranslate2.StorageView]:
    """Load ``settings.model`` for ``settings.executors`` batches in flight, each on one thread.

    Raises:
        IncompatibleError: The alias has no weights.
    """
    weights = find_weights(settings)
    model = load_model(weights, settings.executors)
    return WhisperBackend(
        CTranslate2Runtime(model.model, end_token(model)),
        model.hf_tokenizer,
        model.feature_extractor,
        weights,
        "faster-whisper",
    )
