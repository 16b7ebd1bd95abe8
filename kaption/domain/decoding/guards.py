"""Guards against text that Whisper makes up: pure functions of text and quality figures that name the guard that fired.

The thresholds are those of Whisper's paper (HAZARDS, Whisper 6). Hallucinations on music and noise have good
confidence, so the guards complement the voice detector and do not replace it.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from kaption.domain.decoding.port import Audio

NO_SPEECH = 0.6
LOW_LOGPROB = -1.0
REPETITIVE = 2.4
#: Peak below which a window holds no 16-bit sample other than 0.
NO_SIGNAL = 1.0 / 32768
#: Fewest equal rounds of a loop, and fewest tokens in all: "one one one one" is no loop.
LOOP_ROUNDS = 4
LOOP_TOKENS = 12
#: Rounds that are enough without a closing timestamp: the model lost count of time and writes an utterance twice.
UNCLOSED_ROUNDS = 2
UNCLOSED_TOKENS = 10
#: What may be a loop, as (rounds, tokens in all); a backend checks it against the sound if it can (``find_loop``).
MAYBE_LOOP = ((2, 10), (3, 6))
#: Tokens of the beginning that, repeated at an end without timestamp, are no coincidence.
BEGUN_TOKENS = 6
#: Tokens of a clause, and rounds of it in a row, that speakers hardly ever say; the last round may break off at a limit.
CLAUSE_TOKENS = 8
CLAUSE_ROUNDS = 2.5
#: Share of a text that occurs earlier in it, and the fewest tokens of a run that counts, from which it repeats itself.
AGAIN_SHARE = 0.4
AGAIN_TOKENS = 6
#: Tokens per second of audio that are too many for a text that repeats itself: a real repetition takes its time. Half of 907
#: prompts have 3.3 or more and 99 % have 2.2 or more, and twice as many if the model made up the second round.
DENSE = 3.5

_ARTEFACTS = (
    re.compile(r"(thanks?|thank you)( so much| very much)? for (watching|listening|viewing)"),
    re.compile(r"(please )?(like and )?subscribe( to (my|our|the) channel)?"),
    re.compile(r"(subtitles|subtitled|captions|transcription|translated) by\b.*"),
    re.compile(r"(thank )?you|bye( bye)?|see you (in the )?next (time|video)"),
    re.compile(r"(www )?amara org( community)?"),
)


class Guard(StrEnum):
    """The guard that fired: why a text was removed, or why it is decoded again."""

    NO_SIGNAL = "no_signal"
    NO_SPEECH = "no_speech"
    REPETITION = "repetition"
    LOW_LOGPROB = "low_logprob"
    OVER_BUDGET = "over_budget"
    UNCLOSED = "unclosed"
    VOCABULARY_ECHO = "vocabulary_echo"
    KNOWN_ARTEFACT = "known_artefact"


@dataclass(frozen=True, slots=True)
class Quality:
    """Figures of one decode: mean log probability per token, probability of no speech, compression ratio of the text."""

    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float


@dataclass(frozen=True, slots=True)
class Loop:
    """Tokens ``[start, end)`` of a text repeat themselves every ``size``; the last round may break off."""

    start: int
    size: int
    end: int


def compression_ratio(text: str) -> float:
    """Return the bytes of ``text`` over its compressed bytes: 0 for no text, over 2.4 for a text that repeats itself."""
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0


def token_budget(seconds: float) -> int:
    """Return the most tokens of ``seconds`` of speech: fast speech stays below, a loop does not."""
    return 10 + int(6 * seconds)


def no_signal(audio: Audio) -> Guard | None:
    """Return ``NO_SIGNAL`` if ``audio``, of any length, is digital silence, which Whisper transcribes as "you"."""
    return Guard.NO_SIGNAL if audio.size == 0 or float(np.abs(audio).max()) <= NO_SIGNAL else None


def dense(tokens: Sequence[int], seconds: float) -> bool:
    """Whether ``tokens`` are more than real repetitions have in ``seconds`` of speech."""
    return len(tokens) > DENSE * seconds


def find_loop(tokens: Sequence[int]) -> Loop | None:
    """Return the longest stretch of ``tokens`` that repeats itself; None if there is no more repetition than speech has.

    The tokens alone cannot show whether the speaker repeated it.
    """
    text = list(tokens)
    found: Loop | None = None
    for size in range(1, len(text) // 2 + 1):
        alike = 0
        for at in range(size, len(text) + 1):
            if at < len(text) and text[at] == text[at - size]:
                alike += 1
                continue
            whole = alike + size
            likely = any(whole >= rounds * size and whole >= least for rounds, least in MAYBE_LOOP)
            if alike and likely and (found is None or whole > found.end - found.start):
                found = Loop(at - whole, size, at)
            alike = 0
    return found


def loop_cut(tokens: Sequence[int], *, closed: bool = True, slow: bool = False) -> int:
    """Return the number of ``tokens`` before the second round of a loop; all, if there is none.

    A loop runs to the end of the tokens, or is a long clause.

    Args:
        tokens: Text tokens.
        closed: Whether the model ended with a timestamp.
        slow: Whether they are not ``dense``: then the speaker may have said a clause several times.
    """
    least, total = (LOOP_ROUNDS, LOOP_TOKENS) if closed else (UNCLOSED_ROUNDS, UNCLOSED_TOKENS)
    text = list(tokens)
    if not slow and (broken := _long_loop(text)) is not None:
        return broken
    if not closed and (again := _begun_again(text)) is not None:
        return again
    for size in range(1, len(text) // least + 1):
        rounds = 1
        while len(text) >= (rounds + 1) * size and text[-(rounds + 1) * size :][:size] == text[-size:]:
            rounds += 1
        if rounds >= least and rounds * size >= total:
            return len(text) - (rounds - 1) * size
    return len(text)


def _begun_again(text: list[int]) -> int | None:
    """Return where the text begins again from its first token and continues up to its limit."""
    starts = range(1, len(text) - BEGUN_TOKENS + 1)
    return next((at for at in starts if text[at:] == text[: len(text) - at]), None)


def _long_loop(text: list[int]) -> int | None:
    """Return the start of the second round of a repeated clause; the last round may break off."""
    found = list[int]()
    for size in range(CLAUSE_TOKENS, int(len(text) / CLAUSE_ROUNDS) + 1):
        alike = 0
        for at in range(size, len(text)):
            alike = alike + 1 if text[at] == text[at - size] else 0
            if alike >= round((CLAUSE_ROUNDS - 1) * size):
                found.append(at + 1 - alike)
                break
    return min(found, default=None)


def _said_again(text: list[int]) -> bool:
    """Whether much of ``text`` occurs earlier in it, not only as rounds of a loop."""
    seen, repeated = set[tuple[int, ...]](), set[int]()
    for at in range(len(text) - AGAIN_TOKENS + 1):
        run = tuple(text[at : at + AGAIN_TOKENS])
        if run in seen:
            repeated.update(range(at, at + AGAIN_TOKENS))
        seen.add(run)
    return len(repeated) > AGAIN_SHARE * len(text)


def _silent(quality: Quality) -> bool:
    return quality.no_speech_prob > NO_SPEECH and quality.avg_logprob < LOW_LOGPROB


def retry(quality: Quality, tokens: Sequence[int], seconds: float, *, closed: bool = True) -> Guard | None:
    """Return why a final with the text ``tokens``, over ``seconds`` of audio, should be decoded again, or None.

    ``closed``: whether the output ended with a timestamp. Without one, the model often wrote the text twice.
    """
    doubtful = dense(tokens, seconds) or quality.no_speech_prob > NO_SPEECH
    if doubtful and (quality.compression_ratio > REPETITIVE or _said_again(list(tokens))):
        return Guard.REPETITION
    if len(tokens) > token_budget(seconds):
        return Guard.OVER_BUDGET
    if _silent(quality):
        return None
    if quality.avg_logprob < LOW_LOGPROB:
        return Guard.LOW_LOGPROB
    return None if closed else Guard.UNCLOSED


def suppress(
    text: str, quality: Quality, vocabulary: Sequence[str] = (), *, heard: bool = True, repeated: bool = False
) -> Guard | None:
    """Return the guard that removes ``text``, or None if it stands.

    Args:
        text: The model's text.
        quality: The figures of that decode.
        vocabulary: The terms of the prompt.
        heard: Whether the voice detector found speech; known artefacts are dropped only where it did not.
        repeated: Whether ``retry`` found repetition, also after a second try. The text is removed if it is still repetitive
            after its loop was cut off, or if no speech is likely as well.
    """
    if not text:
        return None
    if _silent(quality):
        return Guard.NO_SPEECH
    if repeated and (quality.compression_ratio > REPETITIVE or quality.no_speech_prob > NO_SPEECH):
        return Guard.REPETITION
    plain = _plain(text)
    # A speaker may well say a list of one term, but hardly ever a longer one.
    likely_echo = len(vocabulary) > 1 or quality.no_speech_prob > NO_SPEECH
    if vocabulary and likely_echo and plain == _plain(" ".join(vocabulary)):
        return Guard.VOCABULARY_ECHO
    if not heard and any(pattern.fullmatch(plain) for pattern in _ARTEFACTS):
        return Guard.KNOWN_ARTEFACT
    return None


def _plain(text: str) -> str:
    """Return the words in lower case with single spaces, without punctuation."""
    return " ".join(re.findall(r"\w+", text.lower()))
