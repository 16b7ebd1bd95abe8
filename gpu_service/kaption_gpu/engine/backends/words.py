"""Turns tokens into words: drops those beyond the audio, and times each word."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from faster_whisper.tokenizer import Tokenizer

from kaption.domain.decoding.port import SAMPLE_RATE, Audio, DecodedWord
from kaption_gpu.engine.backends.runtime import TIME_STEP, TokenTimes

_OPENING = frozenset("\"'“¿([{-")
_CLOSING = frozenset("\"'.。,，!！?？:：”)]}、")
#: Languages without spaces, which the tokenizer splits by characters.
_WITHOUT_SPACES = frozenset(("zh", "ja", "th", "lo", "my", "yue"))
_SENTENCE_END = (".", "?", "!", "。", "？", "！")
#: Text that starts within this many seconds of the audio's end was made up from the padding.
_EDGE = 0.1
#: Shortest rest in seconds that can hold a word; a rest that starts before this second would be the same decode again.
_REST = 0.5
_PROGRESS = 1.0
#: A step of 10 ms is quiet when it is weaker than this share of its word's loudest. ``_PAUSE_STEPS`` quiet steps in a row are a
#: pause; a sound before it of at most this length is the end of the previous word.
_QUIET = 0.05
_STEP = SAMPLE_RATE // 100
_PAUSE_STEPS = 15


def spoken(tokens: Sequence[int], first_timestamp: int, seconds: float) -> tuple[int, ...]:
    """Return the text tokens of ``tokens`` up to the timestamp that closes the audio of ``seconds``.

    The model made up what begins at or after the audio's end from the padding. Text without a closing timestamp stands: the
    model stopped before it.
    """
    kept: list[int] = []
    for token in tokens:
        if token >= first_timestamp:
            if kept and (token - first_timestamp) * TIME_STEP >= seconds - _EDGE:
                break
        else:
            kept.append(token)
    return tuple(kept)


def rest_start(tokens: Sequence[int], first_timestamp: int, seconds: float) -> float | None:
    """Return the second at which the model stopped, if it signals that speech continues; None if it has finished.

    Whisper signals this by two timestamps at the end: it leaves a sentence that the window cuts to the next window. A window
    here has no next one, so the rest must be decoded, or it is lost.
    """
    if len(tokens) < 3 or min(tokens[-2:]) < first_timestamp:
        return None
    at = (tokens[-1] - first_timestamp) * TIME_STEP
    return at if _PROGRESS <= at <= seconds - _REST else None


def time_words(
    tokens: Sequence[int], times: TokenTimes, tokenizer: Tokenizer, seconds: float
) -> tuple[DecodedWord, ...]:
    """Return the words of text tokens with their times.

    Args:
        tokens: n text tokens.
        times: Their times, n + 1 starts.
        tokenizer: Splits by spaces, or by characters in languages without.
        seconds: Length of the audio; no word ends later.

    Returns:
        Words that join to the text, split by spaces if the language has them; starts and ends never decrease.
    """
    (*texts, _), (*parts, _) = tokenizer.split_to_word_tokens([*tokens, tokenizer.eot])
    bounds = np.cumsum([0, *(len(part) for part in parts)])
    words: list[DecodedWord] = []
    opening = ""
    for pieces in _whole_words(texts, by_spaces=tokenizer.language_code not in _WITHOUT_SPACES):
        text = "".join(texts[n] for n in pieces)
        if text.startswith(" ") and text.strip() in _OPENING:
            opening += text
            continue
        # The time of a punctuation mark is not the word's.
        last = max((n for n in pieces if texts[n].strip() not in _CLOSING), default=pieces[0])
        a, b = bounds[pieces[0]], bounds[last + 1]
        probability = float(np.mean(times.probabilities[a:b]))
        words.append(DecodedWord(opening + text, float(times.starts[a]), float(times.starts[b]), probability))
        opening = ""
    if opening and words:
        words[-1] = replace(words[-1], text=words[-1].text + opening)
    return _monotone(_shorten(words), seconds)


def after_pauses(words: Sequence[DecodedWord], audio: Audio) -> tuple[DecodedWord, ...]:
    """Move the start of each of ``words`` after a pause to where its sound begins in ``audio``, shape (n,).

    Attention is imprecise there: a comma takes the pause and the next word's beginning, or the next word takes the pause.
    Without a pause, or with noise in it, nothing changes.
    """
    ends = [0.0, *(word.end for word in words)]
    return tuple(replace(word, start=_sound(word, end, audio)) for end, word in zip(ends, words, strict=False))


def _sound(word: DecodedWord, since: float, audio: Audio) -> float:
    """Return the second at which the sound of ``word`` begins; the previous word ended at second ``since``."""
    piece = audio[round(since * SAMPLE_RATE) : round(word.end * SAMPLE_RATE)]
    steps = piece[: len(piece) // _STEP * _STEP].reshape(-1, _STEP)
    if not len(steps):
        return word.start
    level = np.sqrt((steps**2).mean(axis=1))
    loud = np.flatnonzero(level > _QUIET * level.max())
    gaps = np.diff(loud, prepend=-1) - 1
    for first, quiet in zip(loud, gaps, strict=True):
        if quiet >= _PAUSE_STEPS:
            return round(since + float(first) * _STEP / SAMPLE_RATE, 3)
        if first >= _PAUSE_STEPS:
            break
    return word.start


def _whole_words(texts: Sequence[str], *, by_spaces: bool) -> list[range]:
    """Group ``texts`` into words: pieces without a space between ("o" and "'clock"), or a character with its closing marks."""
    first = [n for n, text in enumerate(texts) if n == 0 or text.startswith(" ") or not (by_spaces or text in _CLOSING)]
    return [range(a, b) for a, b in pairwise([*first, len(texts)])]


def _shorten(words: Sequence[DecodedWord]) -> list[DecodedWord]:
    """Move up the start of a first word, or one after a sentence's end, to drop the pause before it (Whisper's own rule)."""
    durations = [word.end - word.start for word in words if word.end > word.start]
    longest = 2 * min(0.7, float(np.median(durations))) if durations else 0.0
    shortened: list[DecodedWord] = []
    for number, word in enumerate(words):
        after_pause = number == 0 or words[number - 1].text.endswith(_SENTENCE_END)
        start = max(word.start, word.end - longest) if after_pause and longest else word.start
        shortened.append(DecodedWord(word.text, start, word.end, word.probability))
    return shortened


def _monotone(words: Sequence[DecodedWord], seconds: float) -> tuple[DecodedWord, ...]:
    """Limit times to the audio, each at or after the previous one, rounded to a millisecond."""
    at = 0.0
    result: list[DecodedWord] = []
    for word in words:
        start = min(max(word.start, at), seconds)
        at = min(max(word.end, start), seconds)
        result.append(DecodedWord(word.text, round(start, 3), round(at, 3), min(1.0, max(0.0, word.probability))))
    return tuple(result)
