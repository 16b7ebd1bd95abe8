"""Single spoken words joined at known times, and how far decoded words are from them."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

from bench.wer import normalise
from kaption.domain.decoding.port import SAMPLE_RATE, Audio, DecodedWord
from tests.support.prompts import require_prompts

#: Words that the model writes as words: days, months, the spelling alphabet.
_NAMES = ("digits/day-", "digits/mon-", "digits/to", "digits/yesterday", "phonetic/")
_PAUSE_SECONDS = (0.25, 0.6)
_STEP = SAMPLE_RATE // 100
#: Loudness of the noise in pauses and words, so that a pause is no digital silence.
_HISS = 0.002
#: A hundredth of a second is part of the word when it is at least so loud, relative to its loudest.
_LOUD = 0.05


@dataclass(frozen=True)
class Said:
    """A word and when it is said, in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Row:
    """Words joined: audio at 16 kHz, shape (n,)."""

    audio: Audio
    words: tuple[Said, ...]


def rows(length: int = 7, seed: int = 5) -> list[Row]:
    """All the words, in an order of chance, ``length`` to a row; the test skips where there are none."""
    dice = random.Random(seed)
    prompts = [p for p in require_prompts() if p.name.startswith(_NAMES) and len(p.text.split()) == 1]
    dice.shuffle(prompts)
    return [
        _join([(p.text, _trimmed(p.audio())) for p in prompts[at : at + length]], dice)
        for at in range(0, len(prompts), length)
    ]


def _join(words: Sequence[tuple[str, Audio]], dice: random.Random) -> Row:
    pieces: list[Audio] = []
    said, at = [], 0
    for text, audio in words:
        quiet = round(dice.uniform(*_PAUSE_SECONDS) * SAMPLE_RATE)
        pieces += [np.zeros(quiet, np.float32), audio]
        start, at = at + quiet, at + quiet + audio.size
        said.append(Said(text, start / SAMPLE_RATE, at / SAMPLE_RATE))
    joined = np.concatenate(pieces)
    hiss = np.random.default_rng(joined.size).normal(0, _HISS, joined.size)
    return Row((joined + hiss).astype(np.float32), tuple(said))


def _trimmed(audio: Audio) -> Audio:
    """``audio`` without the quiet around the word."""
    frames = audio[: audio.size // _STEP * _STEP].reshape(-1, _STEP)
    level = np.sqrt((frames**2).mean(axis=1))
    loud = np.flatnonzero(level >= _LOUD * level.max())
    return audio[loud[0] * _STEP : (loud[-1] + 1) * _STEP]


def errors(row: Row, decoded: Sequence[DecodedWord]) -> Iterator[tuple[float, float]]:
    """Of each word that was understood, how many seconds its start and its end are from where they were."""
    said, heard = ([normalise(word.text) for word in words] for words in (row.words, decoded))
    for a, b, size in SequenceMatcher(None, said, heard, autojunk=False).get_matching_blocks():
        for true, found in zip(row.words[a : a + size], decoded[b : b + size], strict=True):
            yield abs(found.start - true.start), abs(found.end - true.end)
