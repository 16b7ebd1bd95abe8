"""Decodes one hostile file to PCM s16le in a child process, which ``file_forks`` makes, and ends.

PCM goes to one descriptor; a second gets JSON lines: ``{"rate", "channels"}`` before the first sample, and at the end
``{"samples"}`` or ``{"reason", "detail"}``. Without a last line, a limit killed the child.
HAZARDS, Whisper 5, is why this is a process: a demuxer allocates and decodes while it probes.
"""

import json
import os
from typing import BinaryIO, NoReturn
from typing import Final as Const

from kaption.adapters.media.job import Job
from kaption.adapters.media.sound import Sound
from kaption_schemas.audio import MAX_CHANNELS
from kaption_schemas.errors import RefusedError
from kaption_schemas.reasons import Reason

_SILENCE_SAMPLES: Const = 1 << 16


def _decode(file: BinaryIO, out: BinaryIO, status: BinaryIO, job: Job) -> int:
    """Write the PCM of ``file`` to ``out`` and its format to ``status``; return the samples. Raises ``RefusedError``."""
    sound = Sound(file, job.track)
    if not job.mix and sound.source_channels > MAX_CHANNELS:
        raise RefusedError(Reason.UNSUPPORTED_FORMAT, f"{sound.kind}: {sound.source_channels} channels to split")
    if sound.kind == "flac" and (sound.seconds or 0) > job.audio_seconds:
        raise RefusedError(Reason.TOO_LONG, f"flac: {sound.seconds:.0f} s")
    _say(status, {"rate": sound.rate, "channels": sound.channels})
    for piece in sound.pieces():
        # Check before writing: silence that fills a hole may be hours long.
        if sound.samples > job.audio_seconds * sound.rate:
            raise RefusedError(Reason.TOO_LONG, f"{sound.kind}: over {job.audio_seconds} s")
        left = piece.hole
        while left > 0:
            some = min(left, _SILENCE_SAMPLES)
            out.write(bytes(2 * some * sound.channels))
            left -= some
        out.write(piece.pcm)
    return sound.samples


def _say(status: BinaryIO, line: dict[str, object]) -> None:
    status.write(json.dumps(line).encode() + b"\n")
    status.flush()


def decode(file: BinaryIO, out: BinaryIO, status: BinaryIO, job: Job) -> NoReturn:
    """Decode ``file`` in this confined process and end it; the exit status is 0 if the last line of status was written."""
    try:
        samples = _decode(file, out, status, job)
        # Flush before the last line: PCM still buffered when a limit kills the child must not look complete.
        out.flush()
        last: dict[str, object] = {"samples": samples}
    except RefusedError as error:
        last = {"reason": error.reason.value, "detail": error.detail}
    except MemoryError:
        last = {"reason": Reason.DECODE_LIMIT.value, "detail": "no memory"}
    _say(status, last)
    os._exit(0)  # run no library's clean-up after a hostile file
