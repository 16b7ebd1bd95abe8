"""Fetches human speech for tests and benchmarks: Debian's Asterisk prompts with texts, by apt into a cache outside git."""

import gzip
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import soxr

from kaption.domain.decoding.port import SAMPLE_RATE, Audio

#: The sounds, and their texts.
PACKAGES = ("asterisk-core-sounds-en-wav", "asterisk-core-sounds-en")
CACHE = Path(__file__).parents[1] / ".cache" / "asterisk"
NO_SPEECH = "the Asterisk prompts need apt-get and dpkg-deb: this machine has none, or they could not be fetched"
_SOUNDS = "usr/share/asterisk/sounds/en_US_f_Allison"
_TEXTS = "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"


@dataclass(frozen=True)
class Prompt:
    """One prompt: its name, its text, and its file, an 8 kHz mono WAV."""

    name: str
    text: str
    path: Path

    def audio(self) -> Audio:
        """Its samples at 16 kHz, shape (n,)."""
        samples, rate = soundfile.read(self.path, dtype="float32")
        return np.asarray(soxr.resample(samples, rate, SAMPLE_RATE), dtype=np.float32)


def _fetch(cache: Path) -> None:
    """Download and unpack the packages; ``cache`` appears whole, so that test processes may race."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="asterisk.", dir=cache.parent))
    try:
        for package in PACKAGES:
            subprocess.run(["apt-get", "download", package], cwd=made, check=True, capture_output=True, timeout=120)
        for archive in made.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", archive.name, "."], cwd=made, check=True, capture_output=True, timeout=60)
            archive.unlink()
        if not _complete(cache):
            shutil.rmtree(cache, ignore_errors=True)
            made.rename(cache)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _complete(folder: Path) -> bool:
    return (folder / _SOUNDS).is_dir() and (folder / _TEXTS).is_file()


@lru_cache(maxsize=1)
def speech_folder() -> Path | None:
    """Return the folder of the unpacked packages, fetched on the first call; None if that is impossible."""
    if not _complete(CACHE):
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            return None
        try:
            _fetch(CACHE)
        except (subprocess.SubprocessError, OSError):
            if not _complete(CACHE):
                return None
    return CACHE


def texts(folder: Path) -> dict[str, str]:
    """Return the texts of all spoken prompts by name, without tones, letters' glosses and other ``[...]``."""
    found = {}
    for line in gzip.decompress((folder / _TEXTS).read_bytes()).decode().splitlines():
        match = re.fullmatch(r"([\w./-]+): *([^\[\]()<>]*\w[^\[\]()<>]*)", line)
        if match and not line.startswith(";"):
            found[match[1]] = match[2].strip()
    return found


def prompts(min_words: int = 1) -> list[Prompt]:
    """Return all prompts of at least ``min_words`` words with a sound, by name; empty if there are none.

    Two prompts with one text, such as a newer reading, are both there: they are different recordings.
    """
    folder = speech_folder()
    if folder is None:
        return []
    found = []
    for name, text in sorted(texts(folder).items()):
        path = folder / _SOUNDS / f"{name}.wav"
        if path.is_file() and len(text.split()) >= min_words:
            found.append(Prompt(name, text, path))
    return found


def prompt(name: str) -> Prompt:
    """Return the prompt called ``name``, such as ``vm-intro``.

    Raises:
        KeyError: The prompt does not exist.
    """
    for candidate in prompts():
        if candidate.name == name:
            return candidate
    raise KeyError(name)
