"""One window to decode, and what its decodes say: cut, judged, ranked and joined. Nothing here runs a model."""

from dataclasses import dataclass, replace

from faster_whisper.tokenizer import Tokenizer

from kaption.domain.decoding import guards
from kaption.domain.decoding.port import SAMPLE_RATE, Decoded, DecodedWord, Window
from kaption_gpu.engine.backends import rounds
from kaption_gpu.engine.backends.runtime import Hypothesis, Mel, TokenTimes
from kaption_gpu.engine.backends.words import rest_start, spoken

#: Guards that doubt repetitions.
_REPETITIVE = (guards.Guard.REPETITION, guards.Guard.OVER_BUDGET)


@dataclass(frozen=True, slots=True)
class Job:
    """One window to decode: its ``row`` in the encoder's batch, the start sequence's tokenizer, prompt and limits."""

    row: int
    window: Window
    tokenizer: Tokenizer
    prompt: tuple[int, ...]
    beam_size: int
    max_new: int

    @property
    def seconds(self) -> float:
        """Length of the audio without padding."""
        return min(self.window.audio.size, self.window.padded) / SAMPLE_RATE

    @property
    def full_prompt(self) -> list[int]:
        """All tokens before the output."""
        opening = [self.tokenizer.sot_prev, *self.prompt] if self.prompt else []
        return [*opening, *self.tokenizer.sot_sequence]


@dataclass(frozen=True, slots=True)
class Draft:
    """One decode: text tokens within the audio, and figures; ``rest``: the second from which speech continues.

    ``whole``: the tokens before any were removed; ``loop``: a doubtful repetition in them; ``said``: it was checked, and the
    rest of it was spoken.
    """

    tokens: tuple[int, ...]
    text: str
    quality: guards.Quality
    doubt: guards.Guard | None
    rest: float | None = None
    fallback: guards.Guard | None = None
    whole: tuple[int, ...] = ()
    loop: guards.Loop | None = None
    said: bool = False


def make_draft(job: Job, hypothesis: Hypothesis) -> Draft:
    """Truncate the output at the audio's end and at loops, and check it."""
    tokens = spoken(hypothesis.tokens, job.tokenizer.timestamp_begin, job.seconds)
    figures = (hypothesis.avg_logprob, hypothesis.no_speech_prob)
    whole = guards.Quality(*figures, guards.compression_ratio(job.tokenizer.decode(tokens)))
    closed = bool(hypothesis.tokens) and hypothesis.tokens[-1] >= job.tokenizer.timestamp_begin
    doubt = guards.retry(whole, tokens, job.seconds, closed=closed)
    kept = guards.loop_cut(tokens, closed=closed, slow=not guards.dense(tokens, job.seconds))
    if kept < len(tokens):
        doubt = doubt or guards.Guard.REPETITION
    text = job.tokenizer.decode(tokens[:kept]).strip()
    rest = rest_start(hypothesis.tokens, job.tokenizer.timestamp_begin, job.seconds)
    quality = guards.Quality(*figures, guards.compression_ratio(text))
    loop = guards.find_loop(tokens) if doubt in _REPETITIVE or kept < len(tokens) else None
    return Draft(tokens[:kept], text, quality, doubt, rest, whole=tokens, loop=loop)


def hear_rounds(job: Job, draft: Draft, times: TokenTimes, mel: Mel) -> Draft:
    """Reduce ``draft`` to the spoken rounds of its loop; return it unchanged if only one was spoken."""
    loop, whole = draft.loop, draft.whole
    if loop is None or not any(map(str.isalnum, job.tokenizer.decode(whole[loop.start : loop.start + loop.size]))):
        return draft
    tokens, left = rounds.said(whole, loop, times, mel)
    if left == 1 and len(tokens) >= len(draft.tokens):
        return draft
    text = job.tokenizer.decode(tokens).strip()
    once = (*whole[: loop.start + loop.size], *whole[loop.end :])
    figures = (draft.quality.avg_logprob, draft.quality.no_speech_prob)
    plain = guards.Quality(*figures, guards.compression_ratio(job.tokenizer.decode(once)))
    doubt = guards.retry(plain, once, job.seconds)
    if len(tokens) < len(whole):
        doubt = doubt or guards.Guard.REPETITION
    quality = guards.Quality(*figures, guards.compression_ratio(text))
    return replace(draft, tokens=tokens, text=text, quality=quality, doubt=doubt, said=left > 1)


def rank(draft: Draft) -> tuple[bool, bool, float]:
    """Rank two tries, the better one higher: loops have good log probabilities, so these count last."""
    repetitive = draft.doubt in _REPETITIVE and not draft.said
    return (not repetitive, draft.doubt is not guards.Guard.UNCLOSED, draft.quality.avg_logprob)


def joined(job: Job, first: Draft, rest: Draft) -> Draft:
    """Join two consecutive drafts: mean log probability over tokens, and the lower probability of no speech."""
    tokens = first.tokens + rest.tokens
    text = job.tokenizer.decode(tokens).strip()
    share = len(first.tokens) / max(1, len(tokens))
    quality = guards.Quality(
        share * first.quality.avg_logprob + (1 - share) * rest.quality.avg_logprob,
        min(first.quality.no_speech_prob, rest.quality.no_speech_prob),
        guards.compression_ratio(text),
    )
    return Draft(
        tokens,
        text,
        quality,
        first.doubt or rest.doubt,
        fallback=first.fallback or rest.fallback,
        said=first.said or rest.said,
    )


def suppressed(job: Job, draft: Draft) -> guards.Guard | None:
    """Return the guard that suppresses the text, if one does."""
    repeated = draft.doubt is guards.Guard.REPETITION and not draft.said
    return guards.suppress(draft.text, draft.quality, job.window.options.vocabulary, repeated=repeated)


def decoded(job: Job, draft: Draft, fired: guards.Guard | None, words: tuple[DecodedWord, ...]) -> Decoded:
    """Make the result, without a text if a guard ``fired``."""
    return Decoded(
        text="" if fired else draft.text,
        language=job.tokenizer.language_code,
        avg_logprob=draft.quality.avg_logprob,
        no_speech_prob=draft.quality.no_speech_prob,
        compression_ratio=draft.quality.compression_ratio,
        words=words,
        suppressed=fired,
        fallback=draft.fallback,
    )
