"""Whether a text that repeats itself was said so, or the model went round in a loop.

Two things tell them apart. A round that was said has time of its own: the alignment of text and sound finds a stretch for it,
while made-up rounds fall together in a point. And rounds of the same words sound alike, token by token, also in two
voices; where a model says a phrase over and over to speech that it does not understand, they do not.
"""

from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt

from kaption.domain.decoding.guards import Loop
from kaption_gpu.engine.backends.runtime import MEL_RATE, Mel, TokenTimes

#: Seconds that a token takes at least where it was said (two encoder positions), the share of a round's tokens that do, and the
#: seconds that a round takes at least. Of 292 made-up loops, and of 90 decodes of what was really repeated, these leave most right.
_TOKEN_SECONDS = 0.039
_TOKEN_SHARE = 0.5
_ROUND_SECONDS = 0.2
#: How much nearer to each other the same tokens of two rounds are than different ones: what was really repeated had 0.27 to 0.8 (two voices
#: 0.5 to 0.8), what a model made of noise and of other languages 0.87 and more. Rounds of fewer tokens say too little.
_ALIKE = 0.86
_FEWEST_TOKENS = 3
#: Pieces that each token's sound is looked at in.
_PIECES = 4


def said(tokens: Sequence[int], loop: Loop, times: TokenTimes, mel: Mel) -> tuple[tuple[int, ...], int]:
    """``tokens`` without the rounds of ``loop`` that nobody said, and how many rounds are left: at least one.

    Args:
        tokens: n text tokens.
        loop: What repeats itself in them.
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
    """Whether the tokens between ``starts`` were heard one after the other."""
    return bool((np.diff(starts) > _TOKEN_SECONDS).mean() >= _TOKEN_SHARE and starts[-1] - starts[0] >= _ROUND_SECONDS)


def _likeness(begins: Sequence[int], size: int, starts: npt.NDArray[np.float64], mel: Mel) -> float:
    """How far the same places of rounds are apart, over how far different ones are: 1 where it makes no difference."""
    level = mel - mel.mean(axis=1, keepdims=True)
    sounds = [_sound(starts[at : at + size + 1], level) for at in begins]
    same, other = list[float](), list[float]()
    shifts = range(2, size * _PIECES - 1, max(1, size * _PIECES // 6))
    for one, two in combinations(sounds, 2):
        same.append(_distance(one, two))
        other += [_distance(one, np.roll(two, shift, axis=0)) for shift in shifts]
    return float(np.mean(same) / max(float(np.mean(other)), 1e-9))


def _sound(starts: npt.NDArray[np.float64], level: Mel) -> Mel:
    """Mean log-mel of each piece of the tokens between ``starts``, shape (tokens * pieces, mels)."""
    bounds = np.interp(np.arange((len(starts) - 1) * _PIECES + 1) / _PIECES, np.arange(len(starts)), starts)
    frames = np.minimum((bounds * MEL_RATE).astype(int), level.shape[1] - 1)
    return np.stack([level[:, a : max(b, a + 1)].mean(axis=1) for a, b in pairwise(frames)])


def _distance(one: Mel, two: Mel) -> float:
    return float(np.linalg.norm(one - two, axis=1).mean())
