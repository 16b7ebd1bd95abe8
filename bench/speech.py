"""Makes human speech for benchmarks, Debian's Asterisk prompts joined with pauses, and an offline pass over it.

The offline pass is faster-whisper with the same weights: float32, beam 5, VAD, no previous text. It decodes doubtful windows
again by sampling, with the same seed in each pass, so that all measurements use the same words.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path

import ctranslate2
import numpy as np
import numpy.typing as npt
from faster_whisper import WhisperModel

from bench.asterisk import NO_SPEECH, prompts
from kaption.adapters.models.weights import find_weights
from kaption.adapters.settings import Settings
from kaption.domain.decoding.port import SAMPLE_RATE

PAUSE_SECONDS = 0.6
_PRECISION = "float32"
_SEED = 1


@dataclass(frozen=True, slots=True)
class Spoken:
    """A stretch of speech: PCM of shape (n, 1) at 16 kHz, and its text."""

    pcm: npt.NDArray[np.int16]
    text: str


@dataclass(frozen=True, slots=True)
class Heard:
    """The offline pass: its text, and each word with its end in seconds."""

    text: str
    words: tuple[tuple[str, float], ...]


def joined(count: int, seconds: float, fewest_words: int = 4) -> list[Spoken]:
    """Make ``count`` stretches of about ``seconds``; after all prompts were used, they repeat in other combinations."""
    found = cycle(prompts(fewest_words))
    pause = np.zeros(round(PAUSE_SECONDS * SAMPLE_RATE), np.int16)
    out: list[Spoken] = []
    for _ in range(count):
        parts, texts, length = [pause], [], 0.0
        while length < seconds:
            prompt = next(found, None)
            if prompt is None:
                raise SystemExit(NO_SPEECH)
            audio = (prompt.audio() * 32767).astype(np.int16)
            parts += [audio, pause]
            texts.append(prompt.text)
            length += (len(audio) + len(pause)) / SAMPLE_RATE
        out.append(Spoken(np.concatenate(parts).reshape(-1, 1), " ".join(texts)))
    return out


def offline(stretches: list[Spoken], model: str = "tiny.en") -> list[Heard]:
    """Return the offline pass over each stretch, cached in ``.cache/bench`` since it takes minutes."""
    folder = Path(".cache/bench")
    folder.mkdir(parents=True, exist_ok=True)
    weights = str(find_weights(Settings(model=model)).folder)
    out: list[Heard] = []
    for stretch in stretches:
        file = folder / f"{model}-{_PRECISION}-{_SEED}-{hashlib.sha256(stretch.pcm.tobytes()).hexdigest()[:24]}.json"
        if not file.exists():
            file.write_text(json.dumps(asdict(_pass(weights, stretch))))
        saved = json.loads(file.read_text())
        out.append(Heard(saved["text"], tuple((str(word), float(end)) for word, end in saved["words"])))
    return out


def _pass(weights: str, stretch: Spoken) -> Heard:
    # A thread takes the seed when it first samples: with its own model, no stretch depends on earlier ones.
    ctranslate2.set_random_seed(_SEED)
    whisper = WhisperModel(weights, device="cpu", compute_type=_PRECISION, cpu_threads=2)
    audio = stretch.pcm[:, 0].astype(np.float32) / 32768
    segments, _ = whisper.transcribe(
        audio, beam_size=5, vad_filter=True, condition_on_previous_text=False, word_timestamps=True, language="en"
    )
    found = list(segments)
    words = tuple((w.word.strip(), float(w.end)) for s in found for w in s.words or ())
    return Heard(" ".join(s.text.strip() for s in found), words)
