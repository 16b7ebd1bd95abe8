"""Counts the words that a transcript loses of speech that is really repeated, compared with faster-whisper alone.

    .venv/bin/python -m bench.repeats [--backend auto] [--model tiny.en] [--verbose]

Repeated: a person says the same thing 3 to 10 times, from Debian's Asterisk prompts, each round with its own pace and loudness
and pauses of 0 to 2 s, seeded. Each goes through a session like a live stream's finals and like a file's. Not repeated: prompts
in windows of 4 s, in which models repeat an utterance; insertions there are made up. Lost and made-up words are the deletions
and insertions of jiwer's alignment after Whisper's English normaliser, digits one by one.
"""

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import ctranslate2
import jiwer
import numpy as np
import soxr
from faster_whisper import WhisperModel

from bench import figures as kept
from bench.asterisk import NO_SPEECH, Prompt, prompts
from bench.finals import finals
from bench.speech import Spoken
from bench.wer import normalise
from kaption.adapters.models.weights import find_weights
from kaption.adapters.settings import Settings
from kaption.domain.decoding.port import SAMPLE_RATE, Audio, Backend, DecodeOptions, Kind, Window
from kaption.domain.run.config import SessionConfig
from kaption_gpu.engine.backends import make_backend

#: Ranges of the repeated prompts' numbers of words, so that there are single words, calls and whole sentences.
_WORDS = ((1, 1), (2, 3), (4, 6), (7, 12))
_DIGITS = tuple(f"digits/{n}" for n in (0, 2, 5, 7, 9))
_ROUNDS = (3, 4, 5, 6, 8, 10)
_PAUSES = (0.0, 0.2, 0.4, 0.8, 1.2, 2.0)
_LONGEST = 40.0


@dataclass(frozen=True, slots=True)
class Case:
    """One stretch: its name and its speech."""

    name: str
    spoken: Spoken


def _varied(audio: Audio, random: np.random.Generator) -> Audio:
    """Vary ``audio`` like a repetition: up to 6 % faster or slower, up to 2 dB louder or softer, without its quiet ends."""
    loud = np.flatnonzero(np.abs(audio) > 0.02 * np.abs(audio).max())
    voice = audio[loud[0] : loud[-1] + 1]
    paced = soxr.resample(voice, SAMPLE_RATE * random.uniform(0.94, 1.06), SAMPLE_RATE)
    return np.asarray(paced * 10 ** (random.uniform(-2, 2) / 20), np.float32)


def _repeat(prompt: Prompt, rounds: int, pause: float, random: np.random.Generator) -> Spoken:
    quiet = np.zeros(round(pause * SAMPLE_RATE), np.float32)
    edge = np.zeros(SAMPLE_RATE // 2, np.float32)
    said = prompt.audio()
    parts = [edge]
    for _ in range(rounds):
        parts += [_varied(said, random), quiet]
    audio = np.concatenate([*parts, edge])
    audio += random.normal(0, 3e-4, len(audio)).astype(np.float32)
    pcm = (np.clip(audio, -1, 1) * 32767).astype(np.int16)
    return Spoken(pcm.reshape(-1, 1), " ".join([prompt.text] * rounds))


def repeated() -> list[Case]:
    """Make at least forty utterances, each said 3 to 10 times; the same in every run."""
    found = prompts()
    if not found:
        raise SystemExit(NO_SPEECH)
    random = np.random.default_rng(22)
    chosen: list[Prompt] = []
    for least, most in _WORDS:
        fitting = [
            p
            for p in found
            if least <= len(p.text.split()) <= most
            and "/" not in p.name
            and 0.5 <= p.audio().size / SAMPLE_RATE <= 6
            and re.fullmatch(r"[A-Za-z' ,.?!]+", p.text)
        ]
        chosen += [fitting[i] for i in random.choice(len(fitting), 10, replace=False)]
    chosen += [p for p in found if p.name in _DIGITS]
    cases = []
    for number, prompt in enumerate(chosen):
        pause = _PAUSES[number % len(_PAUSES)]
        most = int(_LONGEST / (prompt.audio().size / SAMPLE_RATE + pause))
        rounds = max(3, min(_ROUNDS[number // len(_PAUSES) % len(_ROUNDS)], most))
        cases.append(Case(f"{prompt.name} x{rounds} {pause:.1f}s", _repeat(prompt, rounds, pause, random)))
    return cases


def short_windows() -> list[Case]:
    """Make cases of prompts that hardly fit in a window of 4 or 5 s, where a model repeats an utterance (ADR 8)."""
    cases = []
    for prompt in prompts(2):
        audio = prompt.audio()
        if audio.size <= 3 * SAMPLE_RATE:
            cases.append(Case(prompt.name, Spoken((audio * 32767).astype(np.int16).reshape(-1, 1), prompt.text)))
    return cases[::2]


def words_of(text: str) -> str:
    """Prepare ``text`` for counting: normalised, digits one by one."""
    return " ".join(re.sub(r"(\d)", r" \1 ", normalise(text)).split())


def count(said: str, heard: str) -> tuple[int, int, int]:
    """Count words said, lost and made up."""
    reference, hypothesis = words_of(said), words_of(heard)
    if not reference:
        return 0, 0, len(hypothesis.split())
    found = jiwer.process_words(reference, hypothesis)
    return len(reference.split()), found.deletions, found.insertions


def alone(cases: Sequence[Case], model: str) -> list[str]:
    """Transcribe with faster-whisper, the same weights and its own defaults (beam 5, VAD)."""
    whisper = WhisperModel(
        str(find_weights(Settings(model=model)).folder), device="cpu", compute_type="float32", cpu_threads=2
    )
    texts = []
    for case in cases:
        ctranslate2.set_random_seed(1)
        audio = case.spoken.pcm[:, 0].astype(np.float32) / 32768
        segments, _ = whisper.transcribe(audio, vad_filter=True, language="en")
        texts.append(" ".join(segment.text.strip() for segment in segments))
    return texts


def ours(cases: Sequence[Case], backend: Backend, *, live: bool) -> list[str]:
    """Return the finals of a session, like a live run's or a file's."""
    config = SessionConfig()
    config = replace(config, file_rules=config.rules) if live else config
    return [" ".join(finals(case.spoken, backend, config, [])) for case in cases]


def in_short_windows(cases: Sequence[Case], backend: Backend) -> list[str]:
    """Decode each case as a final in a window padded to only 4 s."""
    options = DecodeOptions(language="en")
    audio = [np.asarray(case.spoken.pcm[:, 0] / 32768, np.float32) for case in cases]
    return [backend.transcribe([Window(0, Kind.FINAL, piece, 4 * SAMPLE_RATE, options)])[0].text for piece in audio]


def main() -> None:
    """Decode and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--verbose", action="store_true", help="each case's words, and what was recognised")
    kept.add_model_option(parser)
    kept.add_option(parser)
    arguments = parser.parse_args()
    kept.use_model(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    backend = make_backend(Settings(backend=arguments.backend, executors=1))
    backend.warm_up()
    again, short = repeated(), short_windows()
    ways = (
        ("live", again, ours(again, backend, live=True)),
        ("file", again, ours(again, backend, live=False)),
        ("faster-whisper", again, alone(again, arguments.model)),
        ("short windows", short, in_short_windows(short, backend)),
    )
    figures: dict[str, float | str] = {"backend": backend.info.backend}
    for way, cases, texts in ways:
        counts = [count(case.spoken.text, text) for case, text in zip(cases, texts, strict=True)]
        words, lost, made = (sum(numbers) for numbers in zip(*counts, strict=True))
        figures |= {f"{way}, lost": lost / words, f"{way}, made up": made / words}
        print(f"{way:14} {len(cases)} cases, {words} words: lost {lost / words:.1%}, made up {made / words:.1%}")
        for case, text, one in zip(cases, texts, counts, strict=True):
            if arguments.verbose and (one[1] or one[2]):
                print(f"    {case.name}: {one[0]} words, {one[1]} lost, {one[2]} made up: {text[:160]}")
    kept.save(arguments, "repeats", figures)


if __name__ == "__main__":
    main()
