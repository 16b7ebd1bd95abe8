"""Decodes the self-contained frames of one tenant, and forks such children: ``python -m kaption.adapters.media.frame_child``.

``job`` describes requests and answers.
"""

import io
from collections.abc import Sequence
from typing import BinaryIO
from typing import Final as Const

import numpy as np
import soundfile

from kaption.adapters.media.forks import main
from kaption.adapters.media.job import FRAME_ANSWERED, FRAME_ASKED, FRAME_SAMPLES, Job

_CHANNELS: Const = 2
#: The first bytes of a container, and the formats that libsndfile may find in it. Its two dozen other parsers are little tested.
_FORMATS: Const = {b"fLaC": ("FLAC",), b"OggS": ("OGG",), b"RIFF": ("WAV", "WAVEX")}
_FLOATS: Const = ("FLOAT", "DOUBLE")


def pcm_of(body: bytes) -> tuple[int, int, bytes]:
    """Return rate, channels and PCM of a frame; no PCM if it is no frame. Raises what libsndfile's binding raises."""
    expected = _FORMATS.get(body[:4])
    if expected is None:
        return 0, 0, b""
    with soundfile.SoundFile(io.BytesIO(body)) as file:
        if file.format not in expected or file.channels > _CHANNELS:
            return 0, 0, b""
        most = FRAME_SAMPLES // _CHANNELS
        if file.subtype in _FLOATS:
            # libsndfile would convert the loudest sample, 1.0, to the integer 1.
            samples = file.read(most, "float32", always_2d=True)
            pcm = np.clip(np.rint(np.nan_to_num(samples, posinf=0, neginf=0) * 32768), -32768, 32767)
        else:
            pcm = file.read(most, "int16", always_2d=True)
        return file.samplerate, file.channels, pcm.astype("<i2").tobytes()


def work(files: Sequence[BinaryIO], _: Job) -> None:
    """Run the child's loop, until the caller closes the socket."""
    requests, answers = files
    while len(head := requests.read(FRAME_ASKED.size)) == FRAME_ASKED.size:
        body = requests.read(FRAME_ASKED.unpack(head)[0])
        try:
            rate, channels, pcm = pcm_of(body)
        except (soundfile.SoundFileError, MemoryError, ValueError, TypeError):
            rate, channels, pcm = 0, 0, b""
        answers.write(FRAME_ANSWERED.pack(len(pcm), rate, channels) + pcm)
        answers.flush()


def warm_up() -> None:
    """Decode one own frame of each container: the first decode loads and allocates, which a confined child cannot do."""
    for name, *_ in _FORMATS.values():
        frame = io.BytesIO()
        soundfile.write(frame, np.zeros(8000, "int16"), 8000, format=name)
        pcm_of(frame.getvalue())


if __name__ == "__main__":
    warm_up()
    main(work)
