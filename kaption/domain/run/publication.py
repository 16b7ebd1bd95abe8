"""Publishes one channel's texts: finals in order and redacted, partials without their open suffix.

A final is held back if its text could go on after the pause, as half a card number could. The next final is then decoded,
and both are redacted together, so the boundaries stay where the samples put them. Past the hold-back limit, a part of a
number that is too long to show is masked. So is whatever continues it later, however long the pause (promise 6, ADR 21).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from kaption.domain.decoding.port import SAMPLE_RATE, Decoded, ModelInfo
from kaption.domain.records import RunKey
from kaption.domain.redaction.masking import (
    UNKNOWN,
    Before,
    Masked,
    goes_on,
    mask_together,
    published_end,
    text_of,
    visible,
    without_numbers,
)
from kaption.domain.redaction.matches import TextRedactor
from kaption.domain.run.agreement import joined
from kaption.domain.run.resample import to_source
from kaption.domain.run.track import Checkpoint, Segment, Track
from kaption_schemas.records import FinalTranscript, Model, PartialTranscript, Quality, Redaction, Word

#: Seconds that a final with an open suffix waits for speech to go on, and the number of segments that may wait together.
HOLD_SECONDS = 4
HOLD_SEGMENTS = 4
_PROMPT_CHARACTERS = 200

_SILENT = Decoded("", None, 0.0, 1.0, 0.0)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Facts of the run that every transcript of a channel includes."""

    key: RunKey
    channel: int
    rate: int
    entities: tuple[str, ...]
    model: ModelInfo
    prompt_seconds: float = 0
    channels: int = 1


@dataclass(frozen=True, slots=True)
class Said:
    """A channel's last publication: the text that may prompt the next window, its end, and the end of the published text."""

    text: str = ""
    end: int = 0
    before: str = ""


class Publication:
    """Makes records from one channel's decoded segments. ``done`` is the checkpoint after the last final.

    ``last_text`` may prompt the next window, and ``last_end`` is its end. ``before`` is the end of the published text, with
    which the next text is masked.
    """

    def __init__(self, facts: RunFacts, redactor: TextRedactor, done: Checkpoint, said: Said) -> None:
        self.facts = facts
        self.done = done
        self.last_text = said.text
        self.last_end = said.end
        self.before = said.before
        self._redactor = redactor

    def advance(self, track: Track, *, closing: bool) -> Iterator[FinalTranscript]:
        """Publish the leading segments that are decoded and decided, and move ``done`` with each one.

        If the redactor raises, the finals before it stay published, and the rest is unchanged.
        """
        while group := self._decided(track, closing=closing):
            decodes = [segment.decoded or _SILENT for segment in group]
            ended = closing and self._ends_with(track, group)
            how = (decodes, self.facts.entities, self._redactor, self.before)
            masked, before = mask_together(*how, ended=ended), published_end(*how, ended=ended)
            finals = [self._final(s, d, m) for s, d, m in zip(group, decodes, masked, strict=True)]
            self.before = before
            track.publish(len(group))
            self.done = group[-1].checkpoint
            self.last_text, self.last_end = self._prompting(decodes[-1]), group[-1].end
            yield from finals
        if not track.segments:
            self.done = track.checkpoint

    def partial(self, track: Track, decoded: Decoded, heard: int, epoch: int) -> PartialTranscript | None:
        """The open segment's next partial, from audio up to 16 kHz position ``heard``. None if it shows nothing new."""
        state, key = track.open, self.facts.key
        state.agreement.update(decoded.text, heard)
        agreed = joined(state.agreement.stable)
        said = joined(state.agreement.stable + state.agreement.tail)
        stable, text = self._visible(track, agreed), self._visible(track, said, len(agreed))
        if not stable.startswith(state.stable):
            stable = state.stable  # stable words stay as they were shown
        if not text.startswith(stable):
            text = stable
        if not text or (text == state.shown and stable == state.stable):
            return None
        state.shown, state.stable, state.revision = text, stable, state.revision + 1
        return PartialTranscript(
            tenant=key.tenant, stream=key.stream, run=key.run, channel=self.facts.channel, segment=track.next_index,
            epoch=epoch, revision=state.revision, start_ms=_ms(track.speech_start or 0, SAMPLE_RATE),
            end_ms=_ms(heard, SAMPLE_RATE), text=text, stable=len(stable), language=decoded.language,
        )  # fmt: skip

    def prompt(self, track: Track, index: int) -> str:
        """The text right before segment ``index``, without what a policy could name. Empty if it is long ago.

        Once the segments before are decoded, it does not depend on whether the final before is published, held back or open.
        """
        text, end = self.last_text, self.last_end
        start = track.range_start if track.speech_start is None else to_source(track.speech_start, self.facts.rate)
        for segment in track.segments:
            if segment.index >= index:
                start = segment.speech
                break
            if segment.decoded:
                text, end = self._prompting(segment.decoded), segment.end
        return text[-_PROMPT_CHARACTERS:] if start - end < self.facts.prompt_seconds * self.facts.rate else ""

    def _decided(self, track: Track, *, closing: bool) -> list[Segment]:
        """The segments to publish next, together. Empty if one must wait. Depends on samples and texts only."""
        group: list[Segment] = []
        for segment in track.segments:
            if group and (
                len(group) >= HOLD_SEGMENTS or segment.speech - group[-1].end > HOLD_SECONDS * self.facts.rate
            ):
                return group
            if segment.decoded is None and len(segment.audio):
                return []
            group.append(segment)
            if segment.last or not self._unfinished(group):
                return group
        if group and not closing and not self._silent_since(track, group[-1].end):
            return []
        return group

    def _silent_since(self, track: Track, end: int) -> bool:
        """Whether no speech began within the hold-back time after source sample ``end``. A beginning may still move earlier."""
        limit = end * SAMPLE_RATE // self.facts.rate + HOLD_SECONDS * SAMPLE_RATE
        start = track.speech_start
        return track.position > limit + track.lead and (start is None or start > limit)

    def _ends_with(self, track: Track, group: list[Segment]) -> bool:
        """Whether the whole run ends within the hold-back limits after ``group``, so that nothing can follow.

        False if a limit passes before the end: then the text would depend on when it was decoded.
        """
        spoken = [segment for segment in group if len(segment.audio)]
        if group[-1] is not track.segments[-1] or not spoken or spoken[-1].last:
            return False
        return len(group) < HOLD_SEGMENTS and not self._silent_since(track, spoken[-1].end)

    def _unfinished(self, group: list[Segment]) -> bool:
        text = " ".join([self.before, *(text_of(s.decoded) for s in group if s.decoded)]).strip()
        return goes_on(text, self.facts.entities)

    def _visible(self, track: Track, text: str, settled: int | None = None) -> str:
        """The part of the open segment's ``text`` that may be shown, redacted as if it followed all waiting texts."""
        entities = self.facts.entities
        if not entities:
            return text
        waiting: list[str] = []
        known = True
        for segment in track.segments:
            if segment.decoded is None and len(segment.audio):
                waiting, known = [], False
            elif segment.decoded:
                waiting.append(text_of(segment.decoded))
        fronts = [self.before] if known else ["", *UNKNOWN]
        said = [Before(front, " ".join(waiting)) for front in fronts]
        shown = {visible(text, entities, self._redactor, settled, before).rstrip() for before in said}
        # Text that is not decoded yet decides how this text's beginning is masked.
        return shown.pop() if len(shown) == 1 else ""

    def _prompting(self, decoded: Decoded) -> str:
        return without_numbers(text_of(decoded), self.facts.entities)

    def _final(self, segment: Segment, decoded: Decoded, masked: Masked) -> FinalTranscript:
        key, rate, model = self.facts.key, self.facts.rate, self.facts.model
        begin = _ms(segment.speech, rate)
        silent = not len(segment.audio)
        words = tuple(
            Word(
                text=w.text.strip(),
                start_ms=begin + round(w.start * 1000),
                end_ms=begin + round(w.end * 1000),
                probability=round(w.probability, 4),
            )
            for w in masked.words
        )
        quality = Quality(
            avg_logprob=round(decoded.avg_logprob, 4), no_speech_prob=round(decoded.no_speech_prob, 4),
            compression_ratio=round(decoded.compression_ratio, 4), suppressed=decoded.suppressed,
        )  # fmt: skip
        return FinalTranscript(
            tenant=key.tenant, stream=key.stream, run=key.run, channel=self.facts.channel, segment=segment.index,
            start_sample=segment.start, end_sample=segment.end, speech_start_sample=segment.speech,
            speech_end_sample=segment.end, rate=rate, start_ms=_ms(segment.start, rate), end_ms=_ms(segment.end, rate),
            text=masked.text, words=words, language=decoded.language, silent=silent,
            quality=None if silent else quality,
            redactions=tuple(Redaction(entity=m.entity, start=m.start, end=m.end) for m in masked.matches),
            model=Model(name=model.alias, digest=model.digest, backend=model.backend, precision=model.precision),
            channels=self.facts.channels,
        )  # fmt: skip


def _ms(samples: int, rate: int) -> int:
    return samples * 1000 // rate
