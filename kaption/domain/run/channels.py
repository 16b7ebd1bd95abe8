"""Holds a run's channels: a track and a publication for each channel that has a transcript of its own.

It feeds samples to the tracks, and the silence that a publisher left out. It does not know records or their order.
"""

from collections.abc import Callable, Sequence
from typing import Final as Const

import numpy as np
import numpy.typing as npt

from kaption.domain.decoding.port import Decoded
from kaption.domain.run.config import Ports, SessionConfig
from kaption.domain.run.publication import Publication, RunFacts, Said
from kaption.domain.run.resample import to_source
from kaption.domain.run.snapshots import RunState, TrackState, load_cut, load_said
from kaption.domain.run.track import Checkpoint, Early, Segment, Track
from kaption.domain.run.windows import Ahead, undecoded
from kaption_schemas.records import PartialTranscript, RunOptions

#: Left-out silence is fed in pieces of this length, in seconds, so that it does not need gigabytes.
_PIECE_SECONDS: Const = 10
#: Of a longer silence, in seconds, only half this length is fed: an hour would block the worker's loop for seconds.
_LONG_SECONDS: Const = 60
#: Seconds of it that are fed right before the next frame: more than a segment includes from before its speech.
_LEAD_SECONDS: Const = 2


class Channels:
    """The channels of one run. ``rate`` in Hz and ``count`` describe its audio; ``next_sample`` is the next source sample.

    ``mark`` gives the replay point of a boundary from a source sample and ``next_sample``: see ``Ledger.mark``.
    """

    def __init__(
        self, saved: RunState, config: SessionConfig, ports: Ports, mark: Callable[[int, int], tuple[int, int]]
    ) -> None:
        self.options: RunOptions = saved.options
        self.rate = saved.rate
        self.count = saved.channels
        self.next_sample = saved.next_sample
        self.tracks: list[Track] = []
        self.publications: list[Publication] = []
        self._key = saved.key
        self._rules = config.rules_of(saved.latency)
        self._prompt_seconds = config.prompt_seconds
        self._ports = ports
        self._ledger_mark = mark
        for state in saved.tracks:
            self._resume(state)

    @property
    def done(self) -> Checkpoint | None:
        """The earliest of the channels' checkpoints: a replay begins there."""
        return min((p.done for p in self.publications), key=lambda c: (c.sequence, c.sample), default=None)

    @property
    def waiting(self) -> bool:
        """Whether a segment has no final yet."""
        return any(track.segments for track in self.tracks)

    @property
    def undecoded(self) -> bool:
        """Whether a closed segment waits for its decode, or is being decoded."""
        return any(undecoded(track) for track in self.tracks)

    @property
    def backlog_seconds(self) -> float:
        """Audio that waits for its final: from the first speech that no final covers."""
        return max(((self.next_sample - track.waits_from) / self.rate for track in self.tracks), default=0.0)

    @property
    def published(self) -> list[int]:
        """The number of segments with a final, by channel. A run without audio has one channel with none."""
        return [t.segments[0].index if t.segments else t.next_index for t in self.tracks] or [0]

    @property
    def uncovered(self) -> list[int]:
        """The source sample after each channel's last final."""
        return [track.segments[0].start if track.segments else track.range_start for track in self.tracks]

    # The run's format

    def ask(self, options: RunOptions, rate: int, count: int) -> None:
        """Note the run's options and the format that it declared."""
        self.options, self.rate, self.count = options, rate, count

    def open(self, rate: int, count: int) -> None:
        """Make the tracks, at the first frame."""
        self.rate, self.count = rate, count
        for channel in range(self._transcripts):
            self._add(channel, Track(self.rate, self._ports.detector, self._rules), Said())

    def reach_cuts(self) -> None:
        """Move ``next_sample`` up to the tracks' boundaries: audio before these has been taken."""
        ends = (to_source(track.checkpoint.position, self.rate) for track in self.tracks)
        self.next_sample = max([self.next_sample, *ends])

    def _resume(self, state: TrackState) -> None:
        track = Track(self.rate, self._ports.detector, self._rules, start=state.position, segment=state.segment)
        track.resume(load_cut(state), state.range_start)
        self._add(len(self.tracks), track, load_said(state))

    def _add(self, channel: int, track: Track, said: Said) -> None:
        self.tracks.append(track)
        self.publications.append(Publication(self._facts(channel), self._ports.redactor, track.checkpoint, said))

    @property
    def _transcripts(self) -> int:
        """The number of channels that have a transcript of their own."""
        return self.count if self.options.channels == "split" else 1

    def _facts(self, channel: int) -> RunFacts:
        entities = self.options.redaction or ()
        return RunFacts(
            self._key, channel, self.rate, entities, self._ports.model, self._prompt_seconds, self._transcripts
        )

    # Samples in

    def feed(self, pcm: npt.NDArray[np.int16], now_ms: int) -> None:
        """Take the next samples, shape (n, channels)."""
        first = self.next_sample
        self.next_sample += len(pcm)
        if len(self.tracks) == 1 and self.count > 1:
            self.tracks[0].feed_both(pcm, first, now_ms, self._mark)
            return
        for channel, track in enumerate(self.tracks):
            track.feed(pcm[:, channel], first, now_ms, self._mark)

    def feed_silence(self, end: int, now_ms: int) -> None:
        """Feed the left-out silence up to sample ``end``. Of a long silence, feed only the beginning and the end."""
        if end - self.next_sample > _LONG_SECONDS * self.rate:
            self._silence(self.next_sample + _LONG_SECONDS // 2 * self.rate, now_ms)
            for track in self.tracks:
                track.leap(end - _LEAD_SECONDS * self.rate, now_ms, self._mark)
            reached = min(track.source_end for track in self.tracks)  # a restored track may have more
            self.next_sample = max(self.next_sample, min(reached, end))
        self._silence(end, now_ms)

    def _silence(self, end: int, now_ms: int) -> None:
        while self.next_sample < end:
            piece = min(end - self.next_sample, _PIECE_SECONDS * self.rate)
            self.feed(np.zeros((piece, self.count), np.int16), now_ms)

    def wake(self) -> None:
        """Note that a record has come: the open segments may continue."""
        for track in self.tracks:
            track.resting = False

    def rest(self) -> None:
        """Note that no record has come for a moment: the open segments are likely to end here."""
        for track in self.tracks:
            track.resting = True

    def cut(self, now_ms: int) -> None:
        """Close the open segments: no record has come for a long time."""
        for track in self.tracks:
            track.rest(now_ms, self._mark)

    def finish(self, now_ms: int) -> None:
        """Make the last segments from the rest: no more audio comes."""
        for track in self.tracks:
            track.finish(self.next_sample, now_ms, self._mark)

    def drop(self) -> None:
        """Drop all audio, and the texts that were not published."""
        self.tracks.clear()
        self.publications.clear()

    def _mark(self, sample: int) -> tuple[int, int]:
        return self._ledger_mark(sample, self.next_sample)

    # Results in

    def apply(self, channel: int, what: Segment | Ahead, decoded: Decoded, epoch: int) -> Sequence[PartialTranscript]:
        """Take the result for a segment, or for one that was open when its decode began. Returns the partial to show, if any."""
        track = self.tracks[channel]
        segment = what if isinstance(what, Segment) else track.closed_at(what.end) if what.early else None
        if segment is not None:
            segment.decoded = decoded
            return ()
        if isinstance(what, Segment) or what.open is not track.open:
            return ()  # its boundary is elsewhere, or it had no speech
        if what.early:
            track.open.early = Early(what.end, decoded)
        if not decoded.text or what.heard < what.open.heard:
            return ()  # two decodes may be in flight, and the older one's text must not replace the newer one's
        what.open.heard = what.heard
        partial = self.publications[channel].partial(track, what.whole(decoded), what.end, epoch)
        what.settle(decoded)
        return [partial] if partial else ()

    def drafted(self) -> None:
        """Note that a transaction begins with all outputs so far."""
        for track in self.tracks:
            track.drafted()

    def committed(self) -> None:
        """Note that the last drafted transaction is committed."""
        for track in self.tracks:
            track.committed()
