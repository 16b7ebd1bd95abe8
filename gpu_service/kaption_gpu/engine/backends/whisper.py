"""Decodes windows by Whisper's policy on any runtime: prompts, batches, second tries, guards, word times.

A window's result follows from its audio and options alone. Jobs are grouped by shape; no group changes a number of its
items (promise 4), provided that the runtime is batch-invariant.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Generic

import numpy as np
import tokenizers
from faster_whisper.feature_extractor import FeatureExtractor
from faster_whisper.tokenizer import _LANGUAGE_CODES, Tokenizer

from kaption.adapters.models.weights import Weights
from kaption.domain.decoding import guards
from kaption.domain.decoding.port import (
    SAMPLE_RATE,
    WINDOW_SECONDS,
    Costs,
    Decoded,
    DecodedWord,
    DecodeOptions,
    Kind,
    ModelInfo,
    Window,
    window_length,
)
from kaption_gpu.engine.backends.drafts import Draft, Job, decoded, hear_rounds, joined, make_draft, rank, suppressed
from kaption_gpu.engine.backends.prompt import prompt_tokens
from kaption_gpu.engine.backends.runtime import F, Mel, Runtime, TokenTimes
from kaption_gpu.engine.backends.words import after_pauses, time_words

_HOP = 160
#: Mel frames that the end of the audio reaches into (each has 400 samples around its middle), and one of silence.
_SPREAD = 4
#: Longer windows compile at first use, in a third of a second: live segments need one only if a final with a beam of 5 is
#: doubtful, and a runtime keeps some 50 MB for each length.
_WARM_SECONDS = 18
#: Seconds of a window that a calibration decodes, its tokens, and the tokens of a second of speech.
_CALIBRATION_SECONDS = 8
_CALIBRATION_TOKENS = 8
_SPEECH_TOKENS = 3.5
#: A continuation of at least this many tokens that only repeats the end of the text is dropped.
_SAID_TOKENS = 4
#: Beam of a second try.
_RETRY_BEAM = 5


class WhisperBackend(Generic[F]):
    """A ``kaption.domain.decoding.port.Backend`` for Whisper's weights on a ``Runtime``."""

    def __init__(
        self,
        runtime: Runtime[F],
        tokenizer: tokenizers.Tokenizer,
        extractor: FeatureExtractor,
        weights: Weights,
        name: str,
    ) -> None:
        self._runtime = runtime
        self._hf_tokenizer = tokenizer
        self._extractor = extractor
        self._tokenizers: dict[tuple[str, str], Tokenizer] = {}
        known = (code for code in _LANGUAGE_CODES if tokenizer.token_to_id(f"<|{code}|>") is not None)
        many = runtime.multilingual
        self.info = ModelInfo(
            alias=weights.alias,
            digest=weights.digest,
            backend=name,
            precision=runtime.precision,
            languages=frozenset(known) if many else frozenset({"en"}),
            tasks=frozenset({"transcribe", "translate"}) if many else frozenset({"transcribe"}),
        )

    def warm_up(self) -> None:
        """Decode quiet noise at each window length of live segments, with beam and word times, so that all shapes are compiled."""
        noise = np.random.default_rng(0).normal(0, 0.01, SAMPLE_RATE).astype(np.float32)
        options = DecodeOptions(language="en", beam_size=2, word_times=True, max_tokens=8)
        for seconds in (length for length in WINDOW_SECONDS if length <= _WARM_SECONDS):
            self.transcribe([Window(0, Kind.PARTIAL, noise, seconds * SAMPLE_RATE, options)])

    def calibrate(self, size: int) -> Costs:
        """Encode and decode noise of 8 s, as one window and as ``size`` windows.

        The decoder is made to emit a few tokens on noise; their time is scaled to the number of tokens in speech.
        """
        length = _CALIBRATION_SECONDS * SAMPLE_RATE
        noise = np.random.default_rng(0).normal(0, 0.1, length).astype(np.float32)
        window = Window(0, Kind.FINAL, noise, length, DecodeOptions(language="en", max_tokens=_CALIBRATION_TOKENS))
        mel = self._mel(window)
        took = dict[int, float]()
        for count in (1, size, 1):
            begin = time.perf_counter()
            features = self._runtime.encode(np.stack([mel] * count))
            encoded = time.perf_counter()
            prompts = [job.full_prompt for job in self._jobs([window] * count, features)]
            self._runtime.generate(features, prompts, beam_size=1, max_new=_CALIBRATION_TOKENS, endless=True)
            decoded = (time.perf_counter() - encoded) / _CALIBRATION_TOKENS
            seconds = encoded - begin + decoded * _SPEECH_TOKENS * _CALIBRATION_SECONDS
            took[count] = min(seconds, took.get(count, math.inf))
        if size == 1:
            return Costs(took[1] / _CALIBRATION_SECONDS, 0.0)
        # At a busy moment one window may take as long as many.
        further = max((took[size] - took[1]) / (size - 1), took[size] / size / 4)
        return Costs(further / _CALIBRATION_SECONDS, max(0.0, took[1] / further - 1))

    def transcribe(self, batch: list[Window]) -> list[Decoded]:
        """Decode ``batch``; results in its order.

        Raises:
            ValueError: The windows' padded lengths differ, or a language or task is unknown to the model.
        """
        if len({window.padded for window in batch}) > 1:
            raise ValueError("the windows of a batch share one padded length")
        results: dict[int, Decoded] = {}
        loud: list[int] = []
        for index, window in enumerate(batch):
            fired = guards.no_signal(window.audio)
            if fired:
                results[index] = Decoded("", window.options.language, 0.0, 1.0, 0.0, suppressed=fired)
            else:
                loud.append(index)
        if loud:
            results.update(zip(loud, self._decode([batch[index] for index in loud]), strict=True))
        return [results[index] for index in range(len(batch))]

    def _decode(self, windows: list[Window]) -> list[Decoded]:
        """Encode and generate windows of one length, none of them silent."""
        features = self._runtime.encode(np.stack([self._mel(window) for window in windows]))
        jobs = self._jobs(windows, features)
        drafts = self._settle(jobs, features)
        kept = {job.row: suppressed(job, drafts[job.row]) for job in jobs}
        words = self._words([job for job in jobs if not kept[job.row]], drafts, features)
        return [decoded(job, drafts[job.row], kept[job.row], words.get(job.row, ())) for job in jobs]

    def _settle(self, jobs: Sequence[Job], features: F) -> dict[int, Draft]:
        """Return drafts by row: decode a doubtful final again, and continue one that leaves a rest."""
        drafts = self._generate(jobs, features)
        doubtful = [job for job in jobs if job.window.kind is Kind.FINAL and drafts[job.row].doubt]
        again = [other for job in doubtful if (other := self._second_try(job))]
        others = self._generate(again, features)
        alone = (job for job in doubtful if job.row not in others)
        others |= {job.row: self._longer(job, longer) for job in alone if (longer := _next_length(job.window.padded))}
        for row, draft in others.items():
            drafts[row] = replace(max(drafts[row], draft, key=rank), fallback=drafts[row].doubt)
        return {job.row: self._continued(job, drafts[job.row]) for job in jobs}

    def _longer(self, job: Job, padded: int) -> Draft:
        """Decode the job in a longer window, where the model hardly repeats the same text."""
        window = replace(job.window, padded=padded)
        alone = replace(job, row=0, window=window)
        return self._generate([alone], self._runtime.encode(self._mel(window)[None]))[0]

    def _continued(self, job: Job, draft: Draft) -> Draft:
        """Extend ``draft`` by the speech from its rest on, decoded as another window."""
        if draft.rest is None:
            return draft
        audio = job.window.audio[int(draft.rest * SAMPLE_RATE) : job.window.padded]
        if guards.no_signal(audio):
            return draft
        options = replace(job.window.options, language=job.tokenizer.language_code)
        window = replace(job.window, audio=audio, padded=window_length(audio.size), options=options)
        features = self._runtime.encode(self._mel(window)[None])
        [rest_job] = self._jobs([window], features)
        rest = self._settle([rest_job], features)[rest_job.row]
        # The timestamp was too early. The speaker may well repeat a word or two, but not more.
        said = len(rest.tokens) >= _SAID_TOKENS and rest.tokens == draft.tokens[-len(rest.tokens) :]
        return draft if said or suppressed(rest_job, rest) else joined(job, draft, rest)

    def _mel(self, window: Window) -> Mel:
        """Compute the log-mel of the window's audio, with silence up to its padded length, shape (mels, frames of 10 ms).

        Frames after the audio are equal, so only the first of them is computed.
        """
        size, frames = min(window.audio.size, window.padded), window.padded // _HOP
        heard = min(frames, size // _HOP + _SPREAD)
        audio = np.zeros(heard * _HOP, np.float32)
        audio[:size] = np.clip(window.audio[:size], -1.0, 1.0)
        found = np.asarray(self._extractor(audio, padding=0), dtype=np.float32)
        return np.pad(found, ((0, 0), (0, frames - heard)), mode="edge")

    def _jobs(self, windows: Sequence[Window], features: F) -> list[Job]:
        """Resolve languages, prompts and limits."""
        languages = self._languages(windows, features)
        jobs = []
        for row, (window, language) in enumerate(zip(windows, languages, strict=True)):
            options = window.options
            tokenizer = self._tokenizer(language, options.task)
            limit = min(options.max_tokens, guards.token_budget(window.padded / SAMPLE_RATE))
            prompt = prompt_tokens(options, tokenizer.encode, tokenizer.timestamp_begin)
            jobs.append(Job(row, window, tokenizer, prompt, options.beam_size, limit))
        return jobs

    def _languages(self, windows: Sequence[Window], features: F) -> list[str]:
        """Return the language of each window: the only one, the requested one, or the likeliest."""
        if not self._runtime.multilingual:
            return ["en"] * len(windows)
        unknown = [row for row, window in enumerate(windows) if window.options.language is None]
        found = self._runtime.detect(self._runtime.select(features, unknown)) if unknown else []
        detected = dict(zip(unknown, found, strict=True))
        return [window.options.language or detected[row] for row, window in enumerate(windows)]

    def _tokenizer(self, language: str, task: str) -> Tokenizer:
        key = (language, task)
        if key not in self._tokenizers:
            self._tokenizers[key] = Tokenizer(self._hf_tokenizer, self._runtime.multilingual, task, language)
        return self._tokenizers[key]

    def _second_try(self, job: Job) -> Job | None:
        """Make a job with beam and without the earlier text, which causes loops; None if that would be the same decode."""
        options = replace(job.window.options, prompt="")
        prompt = prompt_tokens(options, job.tokenizer.encode, job.tokenizer.timestamp_begin)
        beam_size = max(_RETRY_BEAM, job.beam_size)
        if prompt == job.prompt and beam_size == job.beam_size:
            return None
        return replace(job, prompt=prompt, beam_size=beam_size)

    def _generate(self, jobs: Sequence[Job], features: F) -> dict[int, Draft]:
        """Decode jobs, those of one shape together; return drafts by row.

        Without a beam, a shorter output is the beginning of a longer one, so that limits may differ; with a beam it is not.
        """
        drafts: dict[int, Draft] = {}
        for group in _groups(
            jobs, lambda job: (len(job.full_prompt), job.beam_size, job.beam_size > 1 and job.max_new)
        ):
            found = self._runtime.generate(
                self._runtime.select(features, [job.row for job in group]),
                [job.full_prompt for job in group],
                beam_size=group[0].beam_size,
                max_new=max(job.max_new for job in group),
            )
            for job, hypothesis in zip(group, found, strict=True):
                drafts[job.row] = make_draft(job, replace(hypothesis, tokens=hypothesis.tokens[: job.max_new]))
        looping = {job.row: job for job in jobs if drafts[job.row].loop}
        times = self._times(list(looping.values()), {row: drafts[row].whole for row in looping}, features)
        for row, found_times in times.items():
            drafts[row] = hear_rounds(looping[row], drafts[row], found_times, self._mel(looping[row].window))
        return drafts

    def _words(self, jobs: Sequence[Job], drafts: dict[int, Draft], features: F) -> dict[int, tuple[DecodedWord, ...]]:
        """Return words by row, for jobs with word times."""
        wanted = {job.row: job for job in jobs if job.window.options.word_times and drafts[job.row].tokens}
        words: dict[int, tuple[DecodedWord, ...]] = {}
        times = self._times(list(wanted.values()), {row: drafts[row].tokens for row in wanted}, features)
        for row, found in times.items():
            job = wanted[row]
            timed = time_words(drafts[row].tokens, found, job.tokenizer, job.seconds)
            # Partials settle by the attention's own times.
            words[row] = after_pauses(timed, job.window.audio) if job.window.kind is Kind.FINAL else timed
        return words

    def _times(self, jobs: Sequence[Job], texts: Mapping[int, tuple[int, ...]], features: F) -> dict[int, TokenTimes]:
        """Return when the tokens of ``texts`` are said, by row, where that is known."""
        times: dict[int, TokenTimes] = {}
        for group in _groups(jobs, lambda job: tuple(job.tokenizer.sot_sequence)):
            found = self._runtime.align(
                self._runtime.select(features, [job.row for job in group]),
                group[0].tokenizer.sot_sequence,
                [texts[job.row] for job in group],
                [max(2, int(job.seconds * SAMPLE_RATE) // _HOP) for job in group],
            )
            times |= {job.row: one for job, one in zip(group, found, strict=True) if one is not None}
        return times


def _next_length(padded: int) -> int | None:
    """Return the next longer window, in samples; None for the longest."""
    longer = (seconds * SAMPLE_RATE for seconds in WINDOW_SECONDS if seconds * SAMPLE_RATE > padded)
    return next(longer, None)


def _groups(jobs: Sequence[Job], key: Callable[[Job], Hashable]) -> Iterator[list[Job]]:
    """Group jobs by ``key``, in order."""
    groups: dict[Hashable, list[Job]] = defaultdict(list)
    for job in jobs:
        groups[key(job)].append(job)
    yield from groups.values()
