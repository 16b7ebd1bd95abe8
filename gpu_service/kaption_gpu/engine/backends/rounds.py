"""Decides whether the speaker repeated a text, or the model made up rounds in a loop.

Two signs separate them. A spoken round has its own time: the alignment of text and sound finds a stretch for it, while
made-up rounds collapse into a point. And spoken rounds of the same words sound alike, token by token, also in two voices;
the rounds of a phrase that a model repeats for speech that it does not understand do not.
"""

from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt

from kaption.domain.decoding.guards import Loop
from kaption_gpu.engine.backends.runtime import MEL_RATE, Mel, TokenTimes

#: Least seconds of a spoken token (two encoder positions), the share of a round's tokens that need them, and the least seconds
#: of a round. These values decide most of 292 made-up loops and 90 decodes of real repetitions correctly.
_TOKEN_SECONDS = 0.039
_TOKEN_SHARE = 0.5
_ROUND_SECONDS = 0.2
#: Distance of the same tokens of two rounds over that of different tokens. Real repetitions had 0.27 to 0.8 (two voices 0.5 to
#: 0.8), loops on noise and other languages 0.87 and more. Rounds of fewer tokens prove too little.
_ALIKE = 0.86
_FEWEST_TOKENS = 3
#: Pieces into which each token's sound is divided.
_PIECES = 4


def said(tokens: Sequence[int], loop: Loop, times: TokenTimes, mel: Mel) -> tuple[tuple[int, ...], int]:
    """Remove the rounds of ``loop`` that were not spoken from ``tokens``; also return the number left, at least one.

    Args:
        tokens: n text tokens.
        loop: The repetition in them.
        times: Their times, n + 1 starts.
        mel: The window's log-mel, shape (mels, frames of 10 ms).
    """
    starts = times.starts
    begins = list(range(loop.start, loop.end, loop.size))
    kept = [begins[0], *(at for at in begins[1:] if _has_time(starts[at : min(at + loop.size, loop.end) + 1]))]
    whole = [at for at in kept if at + loop.size <= loop.end]
    if len(whole) > 1 and loop.size >= _FEWEST_TOKENS and _likeness(whole, loop.size, starts, mel) > _ALIKE:
        kept = kept[:1]
    rounds = [token for at in kept for token in tokens[at : min(at + loop.size, loop.end)]]
    return (*tokens[: loop.start], *rounds, *tokens[loop.end :]), len(kept)


def _has_time(starts: npt.NDArray[np.float64]) -> bool:
    """Whether the tokens between ``starts`` have time one after the other."""
    return bool((np.diff(starts) > _TOKEN_SECONDS).mean() >= _TOKEN_SHARE and starts[-1] - starts[0] >= _ROUND_SECONDS)


def _likeness(begins: Sequence[int], size: int, starts: npt.NDArray[np.float64], mel: Mel) -> float:
    """Return the distance of equal places of rounds over that of different places: 1 if there is no difference."""
    level = mel - mel.mean(axis=1, keepdims=True)
    sounds = [_sound(starts[at : at + size + 1], level) for at in begins]
    same, other = list[float](), list[float]()
    shifts = range(2, size * _PIECES - 1, max(1, size * _PIECES // 6))
    for one, two in combinations(sounds, 2):
        same.append(_distance(one, two))
        other += [_distance(one, np.roll(two, shift, axis=0)) for shift in shifts]
    return float(np.mean(same) / max(float(np.mean(other)), 1e-9))


def _sound(starts: npt.NDArray[np.float64], level: Mel) -> Mel:
    """Return the mean log-mel of each piece of the tokens between ``starts``, shape (tokens * pieces, mels)."""
    bounds = np.interp(np.arange((len(starts) - 1) * _PIECES + 1) / _PIECES, np.arange(len(starts)), starts)
    frames = np.minimum((bounds * MEL_RATE).astype(int), level.shape[1] - 1)
    return np.stack([level[:, a : max(b, a + 1)].mean(axis=1) for a, b in pairwise(frames)])


def _distance(one: Mel, two: Mel) -> float:
    return float(np.linalg.norm(one - two, axis=1).mean())
