"""Counts the project's word error rate: jiwer's, after Whisper's English normaliser."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jiwer


@lru_cache(maxsize=1)
def _normaliser() -> Any:
    # Imported on use: its table of spellings takes a second.
    from whisper_normalizer.english import EnglishTextNormalizer  # noqa: PLC0415

    return EnglishTextNormalizer()


def normalise(text: str) -> str:
    """Normalise ``text`` for the count: lower case, numbers as digits, no punctuation."""
    return str(_normaliser()(text))


def wer(refs: Sequence[str], hyps: Sequence[str]) -> float:
    """Return errors over reference words, 0.05 for 5 %, of all pairs of texts together.

    A pair without reference words after normalisation counts by its insertions alone.

    Raises:
        ValueError: The lists differ in length, or no reference has a word.
    """
    if len(refs) != len(hyps):
        raise ValueError(f"{len(refs)} references, {len(hyps)} hypotheses")
    errors = words = 0
    for ref, hyp in zip(map(normalise, refs), map(normalise, hyps), strict=True):
        if ref:
            counted = jiwer.process_words(ref, hyp)
            errors += counted.substitutions + counted.deletions + counted.insertions
            words += len(ref.split())
        else:
            errors += len(hyp.split())
    if not words:
        raise ValueError("no reference has a word")
    return errors / words
