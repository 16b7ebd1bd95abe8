"""Forks a decoding child (``file_child``) for each file: ``python -m kaption.adapters.media.file_forks``."""

from collections.abc import Sequence
from typing import BinaryIO

import av
import av.subtitles.codeccontext
import av.subtitles.stream  # PyAV imports it when it opens a file, and a confined child can open no module

from kaption.adapters.media.file_child import decode
from kaption.adapters.media.forks import main
from kaption.adapters.media.job import Job


def work(files: Sequence[BinaryIO], job: Job) -> None:
    """Do a child's work."""
    file, out, status = files
    decode(file, out, status, job)


if __name__ == "__main__":
    av.logging.set_level(None)
    main(work)
