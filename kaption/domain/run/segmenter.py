"""Where a segment ends: a pause, or at the hard limit the quietest frame of the last 3 s; and which of a file's are joined again.
Depends on samples only.

At every cut the detector starts anew, so a session that is restored at a cut needs none of its state.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final as Const

import numpy as np

from kaption.domain.decoding.port import SAMPLE_RATE, VAD_FRAME, Audio, VoiceDetector

_SECOND = SAMPLE_RATE / VAD_FRAME
#: Length up to which the segments of a file are joined, in frames: longer ones have no fewer words wrong, see adr/0016.
JOINED: Const = int(18 * _SECOND)
#: Frames that the detector hears at once: a number that costs it least (one of ``kaption_gpu.engine.vad``'s), and what lies behind a cut was heard in vain.
_BLOCK = 32


@dataclass(frozen=True, slots=True)
class SegmentRules:
    """Thresholds are probabilities of speech, the rest frames of 32 ms.

    ``pause`` of quiet ends a segment, of which ``trail`` are decoded: so a decode can begin before the pause is over. From
    length ``easy`` on ever less quiet does, at ``hard`` ``short_pause``: what is long costs most to decode again.
    ``join``: what is so long together becomes one segment again, over pauses of at most ``join_pause`` (``Joiner``).
    """

    onset: float = 0.5
    offset: float = 0.35
    pause: int = 16
    short_pause: int = 6
    easy: int = int(5 * _SECOND)
    hard: int = int(10 * _SECOND)
    trail: int = 6
    pad: int = 16
    shortest: int = 4
    longest: int = int(15 * _SECOND)
    quiet_search: int = int(3 * _SECOND)
    silence: int = int(10 * _SECOND)
    join: int = 0
    join_pause: int = int(2 * _SECOND)


@dataclass(frozen=True, slots=True)
class Cut:
    """Audio before ``end`` is dealt with. ``start`` is where its speech begins, None when it holds none.

    What is decoded ends at ``speech_end``. Positions are 16 kHz samples, multiples of ``VAD_FRAME``.
    """

    start: int | None
    end: int
    speech_end: int


class Joiner:
    """Joins cuts in a row, for runs that nobody waits for: long windows have less padding, and the model more to go by.

    ``start`` is where the speech of what is kept back begins. A session that is restored behind a segment joins alike, since
    nothing from before it matters.
    """

    def __init__(self, rules: SegmentRules) -> None:
        self._longest = rules.join * VAD_FRAME
        self._pause = rules.join_pause * VAD_FRAME
        self._kept: Cut | None = None

    @property
    def start(self) -> int | None:
        """None when nothing is kept back."""
        return self._kept.start if self._kept else None

    def take(self, cut: Cut) -> list[Cut]:
        """The cuts that are decided by ``cut``, in order."""
        kept, self._kept = self._kept, None
        joined = self._joined(kept, cut) if kept else None
        if joined is not None:
            self._kept = joined
            return []
        before = [kept] if kept else []
        if cut.start is None or not self._longest:
            return [*before, cut]
        self._kept = cut
        return before

    def flush(self) -> list[Cut]:
        """What is kept back: nothing follows, or nobody waits any longer."""
        kept, self._kept = self._kept, None
        return [kept] if kept else []

    def _joined(self, kept: Cut, cut: Cut) -> Cut | None:
        """Both as one, if they go together; a piece without speech only moves the end."""
        if cut.start is None:
            return Cut(kept.start, cut.end, kept.speech_end) if cut.end - kept.speech_end <= self._pause else None
        near = cut.start - kept.speech_end <= self._pause
        fits = cut.speech_end - (kept.start or 0) <= self._longest
        return Cut(kept.start, cut.end, cut.speech_end) if near and fits else None


class Segmenter:
    """Cuts one channel's audio. ``feed`` takes frames in order; ``origin`` is where audio begins (a cut)."""

    def __init__(self, make_detector: Callable[[], VoiceDetector], rules: SegmentRules, origin: int = 0) -> None:
        self._detector = make_detector()
        self._rules = rules
        self._levels: deque[float] = deque(maxlen=rules.quiet_search)
        self.origin = origin
        self.position = origin
        self._speech: int | None = None
        self._voiced = 0
        self._quiet = 0
        self._heard = origin
        self._restart(origin)

    @property
    def speech_start(self) -> int | None:
        """Where the open segment's speech begins, with some audio before it; None in silence."""
        return self._speech

    @property
    def heard(self) -> int:
        """The end of the last frame that held speech."""
        return self._heard

    @property
    def speech_end(self) -> int | None:
        """Where the open segment's audio ends if nothing more is said; None while that may still move."""
        end = self._trail_end
        return end if self._speech is not None and self._worth and end <= self.position else None

    @property
    def cut_end(self) -> int | None:
        """Where the open segment's audio ends if it is cut here; None where there is none."""
        return min(self.position, self._trail_end) if self._speech is not None and self._worth else None

    @property
    def pause_left(self) -> int:
        """Samples of further quiet that would end the open segment."""
        return (self._enough() - self._quiet) * VAD_FRAME

    @property
    def _trail_end(self) -> int:
        return self._heard + self._rules.trail * VAD_FRAME

    @property
    def _worth(self) -> bool:
        return self._voiced >= self._rules.shortest

    def feed(self, frames: Audio) -> Cut | None:
        """Take frames, shape (n * 512,), up to the first cut; ``position`` tells how many were taken.

        What lies behind a cut must be fed again: a cut at the hard limit lies before the frames that led to it.
        """
        at, probabilities = 0, list[float]()
        while at < len(frames):
            if not probabilities:
                probabilities = self._listen(frames[at : at + _BLOCK * VAD_FRAME])
            cut = self._step(frames[at : at + VAD_FRAME], probabilities.pop(0))
            if cut is not None:
                return cut
            at += VAD_FRAME
        return None

    def _listen(self, frames: Audio) -> list[float]:
        """Probabilities of the first of ``frames``, one at least.

        Digital silence, such as what a publisher left out, needs no detector: an hour of it would take 18 s.
        """
        if self._speech is not None:
            return self._detector(frames)
        loud: list[bool] = np.any(frames.reshape(-1, VAD_FRAME), axis=1).tolist()
        alike = next((n for n, one in enumerate(loud) if one != loud[0]), len(loud))
        return self._detector(frames[: alike * VAD_FRAME]) if loud[0] else [0.0] * alike

    def _step(self, frame: Audio, probability: float) -> Cut | None:
        self._levels.append(float(np.dot(frame, frame)))
        begin, self.position = self.position, self.position + VAD_FRAME
        rules = self._rules
        if self._speech is None:
            if probability < rules.onset:
                return (
                    self._cut(None, self.position, self.position)
                    if self._frames_since(self.origin) >= rules.silence
                    else None
                )
            self._speech = max(self.origin, begin - rules.pad * VAD_FRAME)
        if probability >= (rules.onset if self._quiet else rules.offset):
            self._voiced += 1
            self._quiet = 0
            self._heard = self.position
        else:
            self._quiet += 1
        if self._quiet >= self._enough():
            return self.force()
        if self._frames_since(self._speech) >= rules.longest:
            end = self._quietest()
            return self._cut(self._speech, end, end)
        return None

    def _enough(self) -> int:
        """Frames of quiet that end the open segment."""
        rules, length = self._rules, self._frames_since(self._speech or 0)
        over = min(max(0, length - rules.easy), rules.hard - rules.easy) / (rules.hard - rules.easy)
        return rules.pause - round(over * (rules.pause - rules.short_pause))

    def force(self) -> Cut:
        """Cut here, since nothing follows or nobody waits any longer."""
        return self._cut(self._speech if self._worth else None, self.position, min(self.position, self._trail_end))

    def leap(self, to: int) -> Cut:
        """Go on at ``to``: what lies before is silent."""
        return self._cut(None, to, to)

    def _frames_since(self, position: int) -> int:
        return (self.position - position) // VAD_FRAME

    def _quietest(self) -> int:
        levels = list(self._levels)
        index = min(range(len(levels)), key=levels.__getitem__)
        # The cut is behind the quietest frame, so that at least one frame is always taken.
        return self.position - (len(levels) - 1 - index) * VAD_FRAME

    def _cut(self, start: int | None, end: int, speech_end: int) -> Cut:
        self._restart(end)
        return Cut(start, end, speech_end)

    def _restart(self, origin: int) -> None:
        self.origin = self.position = self._heard = origin
        self._detector.reset()
        self._levels.clear()
        self._speech = None
        self._voiced = 0
        self._quiet = 0
