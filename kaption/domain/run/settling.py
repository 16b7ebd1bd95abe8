"""What a partial need not decode again: words that are stable and behind a gap in the speech are settled.

A partial's decode costs by the audio that it takes and by the words that it says. So the next one begins behind the
settled words; they stay as they are, and only the segment's final hears all of it.
"""

from collections.abc import Sequence
from typing import Final as Const

from kaption.domain.decoding.port import DecodedWord

#: A partial of more audio than this asks for word times, so that the next can be shorter.
SETTLE_SECONDS: Const = 4.0
#: Audio that the next partial keeps at least, and that settling takes away at least: too little of either is not worth it.
_KEEP_SECONDS: Const = 1.2
_TAKE_SECONDS: Const = 1.5


def settle(words: Sequence[DecodedWord], stable: int, length: float) -> tuple[int, float] | None:
    """How many of ``words``, of which ``stable`` are so, to settle, and the second to cut at; None to settle nothing.

    ``length`` is the audio's in seconds. Of all places where there is enough before and behind it the widest gap is taken.
    """
    best: tuple[float, int, float] | None = None
    for count in range(1, min(stable, len(words) - 1) + 1):
        end, start = words[count - 1].end, words[count].start
        at = (end + start) / 2
        if at >= _TAKE_SECONDS and length - at >= _KEEP_SECONDS:
            best = max(best or (-1.0, 0, 0.0), (start - end, count, at))
    return None if best is None else best[1:]
