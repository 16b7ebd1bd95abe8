"""Ends segments at a pause, or at the hard limit at the quietest frame of the last 3 s, and joins short ones of a file.

The result depends on samples only. The detector restarts at every boundary, so a session that is restored at a boundary
does not need the detector's state.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final as Const

import numpy as np

from kaption.domain.decoding.port import SAMPLE_RATE, VAD_FRAME, Audio, VoiceDetector

_SECOND = SAMPLE_RATE / VAD_FRAME
#: Length up to which the segments of a file are joined, in frames. Longer ones do not lower the WER (adr/0016).
JOINED: Const = int(18 * _SECOND)
#: Frames that the detector gets at once, one of the counts of ``kaption_gpu.engine.vad``. 32 is cheapest: frames after a
#: boundary are wasted work.
_BLOCK = 32


@dataclass(frozen=True, slots=True)
class SegmentRules:
    """Rules for the ends of segments. Thresholds are probabilities of speech, all other values are frames of 32 ms.

    ``pause``: quiet that ends a segment. ``trail`` of it are decoded, so a decode can begin before the pause is over. From
    length ``easy`` on, less quiet is enough, down to ``short_pause`` at ``hard``: a long segment costs most to decode again.
    ``join``: the longest segment that is joined from shorter ones, over pauses of at most ``join_pause`` (``Joiner``).
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
    """A boundary at ``end``. ``start`` is the beginning of the speech before it, None if there is none.

    The audio to decode ends at ``speech_end``. Positions are 16 kHz samples, multiples of ``VAD_FRAME``.
    """

    start: int | None
    end: int
    speech_end: int


class Joiner:
    """Joins consecutive segments of files: long windows have less padding and give the model more context.

    ``start`` is the beginning of the kept segment's speech. A session that is restored after a segment joins alike, since
    the result does not depend on earlier segments.
    """

    def __init__(self, rules: SegmentRules) -> None:
        self._longest = rules.join * VAD_FRAME
        self._pause = rules.join_pause * VAD_FRAME
        self._kept: Cut | None = None

    @property
    def start(self) -> int | None:
        """The beginning of the kept segment's speech. None if no segment is kept."""
        return self._kept.start if self._kept else None

    def take(self, cut: Cut) -> list[Cut]:
        """Take a boundary. Returns the boundaries that it decides, in order."""
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
        """Return the kept boundary: nothing follows, or the run stops waiting."""
        kept, self._kept = self._kept, None
        return [kept] if kept else []

    def _joined(self, kept: Cut, cut: Cut) -> Cut | None:
        """Both as one, if they may be joined. A piece without speech only moves the end."""
        if cut.start is None:
            return Cut(kept.start, cut.end, kept.speech_end) if cut.end - kept.speech_end <= self._pause else None
        near = cut.start - kept.speech_end <= self._pause
        fits = cut.speech_end - (kept.start or 0) <= self._longest
        return Cut(kept.start, cut.end, cut.speech_end) if near and fits else None


class Segmenter:
    """Finds the boundaries of one channel's audio. ``feed`` takes frames in order; ``origin`` is the last boundary."""

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
        """The beginning of the open segment's speech, with some audio before it. None in silence."""
        return self._speech

    @property
    def heard(self) -> int:
        """The end of the last frame that held speech."""
        return self._heard

    @property
    def speech_end(self) -> int | None:
        """The end of the open segment's audio if no more speech follows. None while it may still move."""
        end = self._trail_end
        return end if self._speech is not None and self._worth and end <= self.position else None

    @property
    def cut_end(self) -> int | None:
        """The end of the open segment's audio if the boundary is here. None if no segment is open."""
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
        """Take frames, shape (n * 512,), up to the first boundary. ``position`` shows how many were taken.

        Frames after a boundary must be fed again: at the hard limit, the boundary lies before the frames that led to it.
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
        """Probabilities of speech in the first of ``frames``, at least one.

        Digital silence, such as a publisher leaves out, skips the detector: an hour of it would take 18 s.
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
        """The number of quiet frames that end the open segment."""
        rules, length = self._rules, self._frames_since(self._speech or 0)
        over = min(max(0, length - rules.easy), rules.hard - rules.easy) / (rules.hard - rules.easy)
        return rules.pause - round(over * (rules.pause - rules.short_pause))

    def force(self) -> Cut:
        """Make a boundary here: nothing follows, or the run stops waiting."""
        return self._cut(self._speech if self._worth else None, self.position, min(self.position, self._trail_end))

    def leap(self, to: int) -> Cut:
        """Continue at ``to``: the audio before it is silent."""
        return self._cut(None, to, to)

    def _frames_since(self, position: int) -> int:
        return (self.position - position) // VAD_FRAME

    def _quietest(self) -> int:
        levels = list(self._levels)
        index = min(range(len(levels)), key=levels.__getitem__)
        # The boundary is after the quietest frame, so at least one frame is always taken.
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
