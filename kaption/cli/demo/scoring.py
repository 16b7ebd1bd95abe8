"""Loads the demo's talks and scores its captions: word error rate and latencies. No broker, no terminal."""

import re
import statistics
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Final as Const

from kaption.adapters.media.local import AudioFile
from kaption_schemas.errors import AudioFileError
from kaption_schemas.records import FinalTranscript, PartialTranscript, StreamCompleted, Transcript

RATE: Const = 16_000
#: Speech that a checkout has next to the package.
SPEECH: Const = Path(__file__).resolve().parents[3] / "demo" / "speech"
#: Silence between two parts of a talk, in ms.
_BETWEEN_MS: Const = 600
_PAUSE: Const = re.compile(r"\[pause [\d.]+\]")


@dataclass(frozen=True, slots=True, eq=False)
class Talk:
    """A talk: ``pcm`` is s16le, mono, at ``RATE``; ``text`` is its transcript."""

    name: str
    pcm: bytes
    text: str

    @property
    def seconds(self) -> float:
        """Its length in seconds."""
        return len(self.pcm) / 2 / RATE


def load_talks(folder: Path = SPEECH) -> list[Talk]:
    """Load the talks of ``folder``: files ``<talk>-<part>-<voice>.flac``, each with a text, joined by short silences.

    Raises:
        AudioFileError: There are no talks, or one can't be read.
    """
    files = sorted(folder.glob("*-*-*.flac"))
    if not files:
        raise AudioFileError(f"there is no speech in {folder}: run the demo from a checkout, or see --speech")
    return [_join(name, list(parts)) for name, parts in groupby(files, lambda file: file.name.partition("-")[0])]


def _join(name: str, parts: list[Path]) -> Talk:
    quiet = bytes(RATE * _BETWEEN_MS // 1000 * 2)
    texts = [_PAUSE.sub(" ", part.with_suffix(".txt").read_text(encoding="utf-8")) for part in parts]
    return Talk(name, quiet.join(map(_pcm, parts)), " ".join(" ".join(texts).split()))


def _pcm(path: Path) -> bytes:
    with AudioFile(path) as audio:
        if (audio.format.rate, audio.format.channels) != (RATE, 1):
            raise AudioFileError(f"{path} must be mono at {RATE} Hz")
        return b"".join(audio.frames())


def together(name: str, talks: list[Talk]) -> Talk:
    """Join talks one after the other."""
    return Talk(name, b"".join(talk.pcm for talk in talks), " ".join(talk.text for talk in talks))


@dataclass(slots=True)
class Score:
    """The captions of one run. Latencies are in seconds from a word's end to the arrival of its caption."""

    talk: Talk
    live: bool
    finals: list[str] = field(default_factory=list)
    partial_latencies: list[float] = field(default_factory=list)
    final_latencies: list[float] = field(default_factory=list)
    completed: bool = False

    def take(self, record: Transcript, elapsed: float) -> float | None:
        """Count ``record``, which came ``elapsed`` seconds after sample 0 was spoken; return its latency, if it has one."""
        if isinstance(record, StreamCompleted):
            self.completed = True
        if isinstance(record, PartialTranscript):
            self.partial_latencies.append(elapsed - record.end_ms / 1000)
            return self.partial_latencies[-1]
        if isinstance(record, FinalTranscript) and record.text:
            self.finals.append(record.text)
            said = record.words[-1].end_ms if record.words else record.end_ms
            self.final_latencies.append(elapsed - said / 1000)
            return self.final_latencies[-1]
        return None

    def wer(self) -> float:
        """Return the word error rate against the talk's text, 0.05 for 5 %, by jiwer after Whisper's English normaliser.

        Raises:
            ModuleNotFoundError: The extra ``demo`` is not installed.
        """
        import jiwer  # noqa: PLC0415 - an extra
        from whisper_normalizer.english import EnglishTextNormalizer  # noqa: PLC0415

        normalise = EnglishTextNormalizer()
        said, heard = normalise(self.talk.text), normalise(" ".join(self.finals))
        return float(jiwer.wer(said, heard)) if heard else 1.0


def percentiles(values: list[float]) -> tuple[float, float]:
    """Return the median and the 95th percentile; zeros without values."""
    if len(values) < 2:
        return (values[0], values[0]) if values else (0.0, 0.0)
    cuts = statistics.quantiles(values, n=20, method="inclusive")
    return cuts[9], cuts[18]
