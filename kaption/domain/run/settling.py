"""Settles stable words before a gap in the speech, so that later partials do not decode them again.

The cost of a partial's decode grows with its audio and its words. So the next partial begins after the settled words.
Those stay as they are, and only the segment's final decodes all of its audio.
"""

from collections.abc import Sequence
from typing import Final as Const

from kaption.domain.decoding.port import DecodedWord

#: A partial of more seconds of audio than this asks for word times, so that the next one can be shorter.
SETTLE_SECONDS: Const = 4.0
#: Least seconds of audio that the next partial keeps, and that settling removes: less of either is not worth it.
_KEEP_SECONDS: Const = 1.2
_TAKE_SECONDS: Const = 1.5


def settle(words: Sequence[DecodedWord], stable: int, length: float) -> tuple[int, float] | None:
    """The number of ``words`` to settle, and the second at which later partials begin. None to settle nothing.

    The first ``stable`` words are stable. ``length`` is the audio's in seconds. Of all gaps with enough audio before and
    after them, the widest is used.
    """
    best: tuple[float, int, float] | None = None
    for count in range(1, min(stable, len(words) - 1) + 1):
        end, start = words[count - 1].end, words[count].start
        at = (end + start) / 2
        if at >= _TAKE_SECONDS and length - at >= _KEEP_SECONDS:
            best = max(best or (-1.0, 0, 0.0), (start - end, count, at))
    return None if best is None else best[1:]
