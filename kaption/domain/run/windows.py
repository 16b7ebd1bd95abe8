"""Chooses the windows that a run wants decoded, with their options, and keeps those in flight.

A run wants its finals in order, and the newest partial of each channel. Only this module takes windows from the audio.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, takewhile
from typing import Final as Const

from kaption.domain.decoding.guards import token_budget
from kaption.domain.decoding.port import (
    LONGEST_TEXT,
    SAMPLE_RATE,
    Audio,
    Decoded,
    DecodeOptions,
    Kind,
    Window,
    window_length,
)
from kaption.domain.records import Latency
from kaption.domain.run.agreement import joined, plain, words_of
from kaption.domain.run.config import SessionConfig, Wanted
from kaption.domain.run.publication import Publication
from kaption.domain.run.settling import SETTLE_SECONDS, settle
from kaption.domain.run.track import OpenSegment, Segment, Track, seconds
from kaption_schemas.audio import MAX_CHANNELS
from kaption_schemas.reasons import Reason
from kaption_schemas.records import RunOptions

#: A window is abandoned after this number of failures. The first may be the fault of another window in the batch; then it
#: is decoded alone. A hang costs an executor permanently, so it counts as two.
MOST_FAILURES = 4
_HANG: Const = 2
_UNDECODED = Decoded("", None, 0.0, 0.0, 0.0, suppressed=Reason.DECODE_FAILED.value)
#: Seconds of a file's audio, all channels together, that may be decoded or in flight and not committed: after a crash it is
#: decoded again. If finals are held back for an open suffix, one more window is offered once all others are committed.
FILE_AHEAD_SECONDS: Const = 60
#: Finals that a channel of a live run offers at once, oldest first: the default size of a batch. A pool with a backlog of
#: minutes has thousands, and would spend its time on scanning them.
LIVE_AHEAD: Const = 8


@dataclass(frozen=True, slots=True)
class Ahead:
    """A window of a segment that was still open.

    It has the segment's hypotheses, the id of its final, its audio's range, the end of the last speech in it, and whether
    it is an early final.
    """

    open: OpenSegment
    final: int
    start: int
    end: int
    heard: int
    early: bool

    def whole(self, decoded: Decoded) -> Decoded:
        """``decoded`` with the settled words before it."""
        if self.early or not self.open.settled:
            return decoded
        return replace(decoded, text=joined((*self.open.settled, *words_of(decoded.text))))

    def settle(self, decoded: Decoded) -> None:
        """Settle words that agreement made stable, after ``decoded`` was taken."""
        if self.early:
            return
        open_ = self.open
        rest = open_.agreement.stable[len(open_.settled) :]
        same = (plain(word.text.strip()) == plain(stable) for word, stable in zip(decoded.words, rest, strict=False))
        stable = sum(takewhile(bool, same))
        found = settle(decoded.words, stable, seconds(self.end - self.start))
        if found:
            count, at = found
            open_.settled = open_.agreement.stable[: len(open_.settled) + count]
            open_.settled_to = self.start + round(at * SAMPLE_RATE)


class Windows:
    """The windows of one run; ``tracks`` are its channels in order."""

    def __init__(self, latency: Latency, config: SessionConfig) -> None:
        self._live = latency is Latency.LIVE
        self._config = config
        self._in_flight: dict[int, Segment | Ahead] = {}
        self._failures: dict[int, int] = {}

    def wants(self, tracks: Sequence[Track], now_ms: int) -> list[Wanted]:
        """The windows that could be decoded now and are not in flight."""
        out: list[Wanted] = []
        for channel, track in enumerate(tracks):
            if self._failures:
                self._forget(channel, track)
            for segment in self._decodable(track, len(tracks)):
                window_id, late = _id(channel, segment.index), self._late(segment, now_ms)
                if window_id not in self._in_flight:
                    out.append(Wanted(window_id, Kind.FINAL, seconds(len(segment.audio)), late, self._alone(channel)))
            if self._live and not track.open.given_up:
                ahead = self._early(channel, track) or self._partial(channel, track)
                out += [ahead] if ahead else []
        return out

    def begin(
        self, window_id: int, tracks: Sequence[Track], publications: Sequence[Publication], options: RunOptions
    ) -> Window:
        """Copy a wanted window's audio and mark it in flight. Raises ``ValueError`` if it is not wanted."""
        channel, index = _split_id(window_id)
        if window_id in self._in_flight or channel >= len(tracks):
            raise ValueError(f"window {window_id} is in flight, or of no channel")
        track = tracks[channel]
        kind = Kind.PARTIAL if index is None else Kind.FINAL
        segment = next((s for s in undecoded(track) if s.index == index), None)
        if segment is None and index not in (None, track.next_index):
            raise ValueError(f"window {window_id} is of no segment that waits")
        if segment is not None:
            self._in_flight[window_id] = segment
            audio = segment.audio
        else:
            ahead = _ahead(track, _id(channel, track.next_index), early=index is not None)
            self._in_flight[window_id] = ahead
            audio = track.audio(ahead.start, ahead.end)
            track.open.decoded_to = track.position
            if ahead.early:
                track.open.early_end = ahead.end
        index = track.next_index if index is None else index
        prompt = publications[channel].prompt(track, index) if self._prompted else ""
        chosen = self._decode_options(options, kind, audio, prompt)
        return Window(window_id, kind, audio, window_length(len(audio), kind), chosen)

    def abandon(self, window_id: int) -> None:
        """Requeue a window: its batch was not decoded."""
        self._in_flight.pop(window_id, None)

    def fail(self, window_id: int, *, hung: bool) -> bool:
        """Note that the model failed or hung on a window's batch: requeue the window, alone. False if it is abandoned instead.

        A failed partial is not retried; the next one waits for new audio. An abandoned final has no text. An abandoned open
        segment shows no more partials, and its final starts with a new count of failures. A hang costs an executor, so one
        hang ends an open segment's partials, and the next abandons its final, which has the same audio.
        """
        what = self._in_flight.pop(window_id, None)
        if what is None:
            return True
        if isinstance(what, Ahead) and what.early:
            what.open.early_end = None
        failures = self._failures.get(window_id, 0) + (_HANG if hung else 1)
        self._failures[window_id] = failures
        if failures < MOST_FAILURES and not (hung and isinstance(what, Ahead)):
            return True
        if isinstance(what, Segment):
            del self._failures[window_id]
            what.decoded = _UNDECODED
        else:
            self._failures[window_id] = 1
            if hung:
                self._failures[what.final] = MOST_FAILURES - _HANG
            what.open.given_up = True
        return False

    def end(self, window_id: int) -> tuple[int, Segment | Ahead] | None:
        """Take a window out of flight. Returns its channel, and its segment or the segment that was open then."""
        what = self._in_flight.pop(window_id, None)
        if what is None:
            return None
        channel = _split_id(window_id)[0]
        for decoded in (window_id, _id(channel, None)):
            self._failures.pop(decoded, None)
        return channel, what

    @property
    def _prompted(self) -> bool:
        """Whether a window waits for the text before it as its prompt. A file's windows are decoded in parallel, so they do not."""
        return self._live and self._config.prompt_seconds > 0

    def _late(self, segment: Segment, now_ms: int) -> float:
        """Seconds that a segment has waited: in a live run since its boundary, in a file only since its turn came.

        If a file's audio counted from its arrival, a short file would wait for the end of a long one.
        """
        if segment.offered_ms is None:
            segment.offered_ms = segment.since_ms if self._live else now_ms
        return (now_ms - segment.offered_ms) / 1000

    def _forget(self, channel: int, track: Track) -> None:
        """Drop the failures of segments that have their final. A hang is noticed long after later segments were decoded."""
        first = track.segments[0].index if track.segments else track.next_index
        for failed in list(self._failures):
            of, index = _split_id(failed)
            if of == channel and index is not None and index < first:
                del self._failures[failed]

    def _alone(self, channel: int) -> bool:
        return any(_split_id(failed)[0] == channel for failed in self._failures)

    def _decodable(self, track: Track, channels: int) -> list[Segment]:
        """The segments to decode: one at a time if the one before is the prompt, and in a file not too far ahead."""
        waiting = undecoded(track)
        if self._prompted:
            return waiting[:1]
        if self._live:
            return waiting[:LIVE_AHEAD]
        lengths = (seconds(len(s.audio)) for s in track.segments)
        ends = accumulate(lengths, initial=track.at_risk)
        next(ends)
        near = {s.index for s, end in zip(track.segments, ends, strict=True) if end <= FILE_AHEAD_SECONDS / channels}
        return [s for s in waiting if s.index in near or (s is waiting[0] and not track.at_risk)]

    def _early(self, channel: int, track: Track) -> Wanted | None:
        """An early final. It is likely to become the segment's final; else it shows the words so far."""
        start, end, window_id = track.speech_start, track.speech_end, _id(channel, track.next_index)
        if start is None or end is None or window_id in self._in_flight or end == track.open.early_end:
            return None
        if self._prompted and undecoded(track):
            return None  # the text before it is still unknown
        # It is due when the pause is over. Until then, partials go first.
        return Wanted(window_id, Kind.FINAL, seconds(end - start), -seconds(track.pause_left), self._alone(channel))

    def _partial(self, channel: int, track: Track) -> Wanted | None:
        start, window_id = track.speech_start, _id(channel, None)
        if start is None or window_id in self._in_flight:
            return None
        before = max(track.open.decoded_to, start)
        fresh = seconds(track.position - before)
        # No speech since the last partial: another would show nothing new, and if the pause lasts the final is near.
        if fresh < self._config.partial_step or track.heard <= before:
            return None
        length = seconds(track.position - (track.unsettled or start))
        return Wanted(window_id, Kind.PARTIAL, length, fresh - self._config.partial_step, self._alone(channel))

    def _decode_options(self, options: RunOptions, kind: Kind, audio: Audio, prompt: str) -> DecodeOptions:
        final = kind is Kind.FINAL
        return DecodeOptions(
            language=None if options.language == "auto" else options.language, task=options.task, prompt=prompt,
            vocabulary=options.vocabulary, beam_size=self._config.beam_size if final else 1,
            word_times=final or seconds(len(audio)) > SETTLE_SECONDS,
            # A final's limit depends on its window's length only, so that finals of one length are decoded together.
            max_tokens=LONGEST_TEXT if final else token_budget(seconds(len(audio))),
        )  # fmt: skip


def undecoded(track: Track) -> list[Segment]:
    """The closed segments that wait for their decode, or are being decoded."""
    return [s for s in track.segments if s.decoded is None and len(s.audio)]


def _ahead(track: Track, final: int, *, early: bool) -> Ahead:
    """The window of an open segment for an early final or a partial."""
    start, end = (track.speech_start, track.speech_end) if early else (track.unsettled, track.position)
    if start is None or end is None:
        raise ValueError("nothing is open")
    return Ahead(track.open, final, start, end, track.heard, early)


def _id(channel: int, index: int | None) -> int:
    """A window's id. There are at most two channels, and 0 in place of an index means the open segment's partial."""
    return channel + MAX_CHANNELS * (0 if index is None else index + 1)


def _split_id(window_id: int) -> tuple[int, int | None]:
    """A window's channel and its segment's index. The index is None for a partial."""
    rest, channel = divmod(window_id, MAX_CHANNELS)
    return channel, rest - 1 if rest else None
