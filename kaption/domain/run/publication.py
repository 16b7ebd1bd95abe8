"""What may be published of one channel's texts: finals in order and redacted, partials with their open end withheld.

A final whose text ends in something that could go on behind the pause (half a card number) is held until the next one is
decoded, and both are redacted together; so the boundaries stay where the samples put them. Past the hold-back limit what is
too much of a number to be shown is masked, and whatever goes on with it later, however long the pause (promise 6, ADR 21).
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

#: How long a final's open end waits for speech to go on, and how many segments may wait together.
HOLD_SECONDS = 4
HOLD_SEGMENTS = 4
_PROMPT_CHARACTERS = 200

_SILENT = Decoded("", None, 0.0, 1.0, 0.0)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What every transcript of a channel says of its run."""

    key: RunKey
    channel: int
    rate: int
    entities: tuple[str, ...]
    model: ModelInfo
    prompt_seconds: float = 0
    channels: int = 1


@dataclass(frozen=True, slots=True)
class Said:
    """What a channel has published last: what may prompt the next window, where it ends, and the end of the published text."""

    text: str = ""
    end: int = 0
    before: str = ""


class Publication:
    """One channel's way from decoded segments to records. ``done`` is the checkpoint behind the last final.

    ``last_text`` is what may prompt the next window, ``last_end`` where it ends; ``before`` the end of the published text, as the
    next one is masked with.
    """

    def __init__(self, facts: RunFacts, redactor: TextRedactor, done: Checkpoint, said: Said) -> None:
        self.facts = facts
        self.done = done
        self.last_text = said.text
        self.last_end = said.end
        self.before = said.before
        self._redactor = redactor

    def advance(self, track: Track, *, closing: bool) -> Iterator[FinalTranscript]:
        """Publish the segments at the front that are decoded and decided, and move ``done`` with each that is published.

        Where the redactor raises, what was published before it stands, and the rest is as it was.
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
        """The open segment's next revision, of a decode up to 16 kHz position ``heard``; None when it shows nothing new."""
        state, key = track.open, self.facts.key
        state.agreement.update(decoded.text, heard)
        agreed = joined(state.agreement.stable)
        said = joined(state.agreement.stable + state.agreement.tail)
        stable, text = self._visible(track, agreed), self._visible(track, said, len(agreed))
        if not stable.startswith(state.stable):
            stable = state.stable  # what was stable stays as it was shown
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
        """Text right before segment ``index``, without what a policy could name; empty when it is long ago.

        It is the same whether the final before is out, held or not closed yet, if those before are decoded.
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
        """The segments to publish next, together; empty when one must wait. Depends on samples and texts only."""
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
        """Whether no speech began within the hold-back time behind source sample ``end``; a beginning may yet be put before it."""
        limit = end * SAMPLE_RATE // self.facts.rate + HOLD_SECONDS * SAMPLE_RATE
        start = track.speech_start
        return track.position > limit + track.lead and (start is None or start > limit)

    def _ends_with(self, track: Track, group: list[Segment]) -> bool:
        """Whether the run, all of which is known, is over before anybody stopped waiting behind ``group``: nothing can follow.

        Not where somebody would have: then its text hangs on when it was decoded.
        """
        spoken = [segment for segment in group if len(segment.audio)]
        if group[-1] is not track.segments[-1] or not spoken or spoken[-1].last:
            return False
        return len(group) < HOLD_SEGMENTS and not self._silent_since(track, spoken[-1].end)

    def _unfinished(self, group: list[Segment]) -> bool:
        text = " ".join([self.before, *(text_of(s.decoded) for s in group if s.decoded)]).strip()
        return goes_on(text, self.facts.entities)

    def _visible(self, track: Track, text: str, settled: int | None = None) -> str:
        """What may be shown of the open segment's ``text``, in front of which all that waits is taken to stand."""
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
        # What is not decoded yet decides what this text's beginning is.
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
