"""Turns one channel's samples into segments. It owns audio, boundaries and the open segment's hypotheses.

It does not know sequences, records or published texts (``session``).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import lcm

import numpy as np

from kaption.domain.decoding.port import SAMPLE_RATE, VAD_FRAME, Audio, Decoded, VoiceDetector
from kaption.domain.run.agreement import Agreement
from kaption.domain.run.mixing import Mixer
from kaption.domain.run.resample import BLOCK, Pcm, Resampler, to_source
from kaption.domain.run.samples import Samples
from kaption.domain.run.segmenter import Cut, Joiner, Segmenter, SegmentRules

#: Multiples of this are positions at which both a block of the resampler and a frame of the detector begin.
_ALIGNED = lcm(BLOCK, VAD_FRAME)
MakeDetector = Callable[[], VoiceDetector]
#: Gives, for a source sample, the sequence of the frame that holds it, and the number of samples before that frame.
Mark = Callable[[int], tuple[int, int]]


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A boundary from which the track can begin again: 16 kHz position, and the source samples before ``sample`` that it needs."""

    position: int
    tail: Pcm
    tail_start: int
    sample: int
    sequence: int


@dataclass(slots=True, eq=False)
class Segment:
    """A closed range ``[start, end)`` of source samples that waits for its final.

    ``audio`` is the part to decode, up to 16 kHz position ``audio_end``. ``offered_ms``: the time from which it could have been
    decoded. ``last``: the run does not wait for what may follow.
    """

    index: int
    start: int
    end: int
    speech: int
    audio: Audio
    audio_end: int
    since_ms: int
    checkpoint: Checkpoint
    decoded: Decoded | None = None
    offered_ms: int | None = None
    last: bool = False


@dataclass(frozen=True, slots=True)
class Early:
    """An early final's result. It is the segment's final if the segment's audio ends at ``end``."""

    end: int
    decoded: Decoded


@dataclass(slots=True, eq=False)
class OpenSegment:
    """The hypotheses of the segment that is being spoken.

    Positions are 16 kHz samples. ``heard``: the last speech in the newest hypothesis that was taken. ``early_end``: the end
    of the audio of the last early final. ``settled``: stable words that partials do not decode again. ``settled_to``: the
    beginning of the audio that they still decode. ``given_up``: the model fails on the segment; it shows no partials.
    """

    agreement: Agreement = field(default_factory=Agreement)
    revision: int = 0
    heard: int = 0
    decoded_to: int = 0
    early_end: int | None = None
    early: Early | None = None
    given_up: bool = False
    settled: tuple[str, ...] = ()
    settled_to: int = 0
    shown: str = ""
    stable: str = ""


class Track:
    """Feeds one channel's samples to the segmenter and keeps the audio that no final covers yet."""

    def __init__(
        self, rate: int, make_detector: MakeDetector, rules: SegmentRules, start: int = 0, segment: int = 0
    ) -> None:
        self.rate = rate
        self.segments: list[Segment] = []
        self.open = OpenSegment()
        self.next_index = segment
        #: Whether no audio has come for a moment: the open segment is then taken to end here.
        self.resting = False
        self.range_start = to_source(start, rate)
        self._mixer: Mixer | None = None
        self._resampler = Resampler(rate, start=start)
        self._segmenter = Segmenter(make_detector, rules, start)
        self._joiner = Joiner(rules)
        #: The number of 16 kHz samples by which a segment may begin before its speech.
        self.lead = rules.pad * VAD_FRAME
        self._audio = Samples(np.float32, start)
        self._skip = start - self._resampler.position
        self._published = self._drafted = self._committed = 0.0
        self.checkpoint = Checkpoint(start, np.zeros(0, np.int16), self._resampler.end, self._resampler.end, 0)

    @property
    def source_end(self) -> int:
        """The source position after the last sample taken."""
        return self._resampler.end

    @property
    def position(self) -> int:
        """The 16 kHz position up to which the detector has run."""
        return self._segmenter.position

    @property
    def heard(self) -> int:
        """The 16 kHz position after the open segment's last speech."""
        return self._segmenter.heard

    @property
    def speech_start(self) -> int | None:
        """The 16 kHz position at which the speech of the open segment, or of one kept for joining, begins. None in silence."""
        return self._segmenter.speech_start if self._joiner.start is None else self._joiner.start

    @property
    def unsettled(self) -> int | None:
        """The 16 kHz position at which a partial's audio begins. None in silence."""
        start = self.speech_start
        return None if start is None else max(start, self.open.settled_to)

    @property
    def speech_end(self) -> int | None:
        """The 16 kHz position at which the open segment's audio ends if no speech follows. None while it may still move."""
        return self._segmenter.cut_end if self.resting else self._segmenter.speech_end

    @property
    def pause_left(self) -> int:
        """The number of further quiet 16 kHz samples that would end the open segment."""
        return 0 if self.resting else self._segmenter.pause_left

    def closed_at(self, audio_end: int) -> Segment | None:
        """The segment that waits for its final and has its audio's end at ``audio_end``."""
        return next((s for s in self.segments if s.audio_end == audio_end and s.decoded is None), None)

    @property
    def waits_from(self) -> int:
        """The source sample from which audio is kept for finals. Quiet audio before it is not kept."""
        return self.segments[0].speech if self.segments else to_source(self.checkpoint.position, self.rate)

    @property
    def at_risk(self) -> float:
        """Seconds of audio with finals that are published and not committed: after a crash it is decoded again."""
        return self._published - self._committed

    def publish(self, count: int) -> None:
        """Note that the finals of the first ``count`` segments are published."""
        self._published += sum(seconds(len(segment.audio)) for segment in self.segments[:count])
        del self.segments[:count]

    def drafted(self) -> None:
        """Note that a transaction begins with all finals so far."""
        self._drafted = self._published

    def committed(self) -> None:
        """Note that this transaction is committed."""
        self._committed = self._drafted

    def resume(self, cut: Checkpoint, range_start: int) -> None:
        """Begin a new track after a saved checkpoint. The next segment begins at source sample ``range_start``."""
        self._keep(self._resampler.feed(cut.tail, cut.tail_start))
        self.checkpoint, self.range_start = cut, range_start

    def feed(self, pcm: Pcm, first: int, now_ms: int, mark: Mark) -> None:
        """Take source samples from position ``first`` on.

        For a checkpoint, ``mark`` gives the sequence and first sample of the frame that holds a source sample.
        """
        self._take(self._resampler.feed(pcm, first), now_ms, mark)

    def feed_both(self, pcm: Pcm, first: int, now_ms: int, mark: Mark) -> None:
        """Take samples of both channels, shape (n, 2), and mix them. Otherwise like ``feed``."""
        self._mixer = self._mixer or Mixer(self.rate)
        self.feed(*self._mixer.feed(pcm, first), now_ms, mark)

    def finish(self, end: int, now_ms: int, mark: Mark) -> None:
        """End the run at source sample ``end``. The rest becomes the last segment, which is silent without speech."""
        if self._mixer is not None:
            self.feed(*self._mixer.flush(), now_ms, mark)
        self._take(self._resampler.flush(), now_ms, mark)
        left = self._audio.end - self._segmenter.position
        if left > 0:
            padding = np.zeros(-left % VAD_FRAME, np.float32)
            self._take(padding, now_ms, mark)
        self.cut_here(now_ms, mark)
        for segment in self.segments:  # padding does not belong to the run
            segment.end = min(segment.end, end)
        self.range_start = min(self.range_start, end)
        if self.range_start < end:
            self._append(self.range_start, end, (np.zeros(0, np.float32), self.position), now_ms, self.checkpoint)

    def rest(self, now_ms: int, mark: Mark) -> None:
        """Close the open segment, after a long time without a record. No final waits for what may follow."""
        self.cut_here(now_ms, mark)
        if self.segments:
            self.segments[-1].last = True

    def cut_here(self, now_ms: int, mark: Mark) -> None:
        """Close the open segment here."""
        if self._segmenter.speech_start is not None:
            self._cut(self._segmenter.force(), now_ms, mark)
        for cut in self._joiner.flush():
            self._apply(cut, now_ms, mark)

    def leap(self, to: int, now_ms: int, mark: Mark) -> None:
        """Assume silence in source samples up to about ``to``. ``source_end`` is then the sample to continue with.

        The open segment is closed. A restored track that begins after ``to`` stays where it is.
        """
        target = to * SAMPLE_RATE // self.rate // _ALIGNED * _ALIGNED
        if target <= self.position:
            return
        self.cut_here(now_ms, mark)
        self._mixer = None  # the samples that it held were silent, too
        self._resampler = Resampler(self.rate, start=target)
        self._audio = Samples(np.float32, target)
        self._skip = 0
        self._cut(self._segmenter.leap(target), now_ms, mark)

    def audio(self, start: int, end: int) -> Audio:
        """A copy of the audio of a 16 kHz range of the open segment, shape (n,)."""
        return self._audio.slice(start, end).copy()

    def _keep(self, audio: Audio) -> None:
        dropped = min(self._skip, len(audio))
        self._skip -= dropped
        self._audio.append(audio[dropped:])

    def _take(self, audio: Audio, now_ms: int, mark: Mark) -> None:
        self._keep(audio)
        while (frames := (self._audio.end - self._segmenter.position) // VAD_FRAME) > 0:
            at = self._segmenter.position
            cut = self._segmenter.feed(self._audio.slice(at, at + frames * VAD_FRAME))
            if cut is not None:
                self._cut(cut, now_ms, mark)

    def _cut(self, cut: Cut, now_ms: int, mark: Mark) -> None:
        for decided in self._joiner.take(cut):
            self._apply(decided, now_ms, mark)

    def _apply(self, cut: Cut, now_ms: int, mark: Mark) -> None:
        checkpoint = self._checkpoint(cut.end, mark)
        if cut.start is not None:
            audio = self._audio.slice(cut.start, cut.speech_end).copy()
            speech, end = to_source(cut.start, self.rate), to_source(cut.end, self.rate)
            self._append(speech, end, (audio, cut.speech_end), now_ms, checkpoint)
        self._audio.drop(cut.end)
        self.open = OpenSegment(decoded_to=cut.end)
        self.checkpoint = checkpoint
        # A boundary at the hard limit lies before the last fed frame. Nothing before the boundary is needed again.
        self._resampler.forget(self._resampler.need(cut.end))

    def _append(self, speech: int, end: int, audio: tuple[Audio, int], now_ms: int, checkpoint: Checkpoint) -> None:
        early = self.open.early
        decoded = early.decoded if early and early.end == audio[1] else None
        self.segments.append(
            Segment(self.next_index, self.range_start, end, speech, *audio, now_ms, checkpoint, decoded)
        )
        self.next_index += 1
        self.range_start = end

    def _checkpoint(self, position: int, mark: Mark) -> Checkpoint:
        sequence, sample = mark(to_source(position, self.rate))
        need = self._resampler.need(position)
        # A replay mixes from ``sample`` on. Only the kept samples show how the block that contains it was mixed.
        kept = sample if self._mixer is None else self._mixer.block_end(sample)
        return Checkpoint(position, self._resampler.held(need, kept), need, sample, sequence)


def seconds(samples: int) -> float:
    """16 kHz samples as seconds."""
    return samples / SAMPLE_RATE
