"""Normalises one object: fetches it, decodes it in a child, mutes it, and stores the audio. Blocks: use a thread.

It does not know Kafka. The audio goes to the work bucket. It is never whole in memory, and the disk holds only the
object's own bytes.
"""

import errno
import hashlib
import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import BinaryIO, cast
from typing import Final as Const

from kaption.adapters.media.files import Decoding, MediaDecoder
from kaption.adapters.settings import Settings
from kaption.adapters.store.s3 import ObjectStore, Stat, normalised_key
from kaption.domain.intake.bucket_events import ObjectRun
from kaption.domain.intake.file_chunks import Normalised, muted_samples
from kaption.domain.intake.pcm import silence
from kaption.domain.records import RunKey
from kaption_schemas.errors import LocalError, RefusedError, StoppedError
from kaption_schemas.reasons import Reason

_BLOCK_SAMPLES = 1 << 16
_FULL: Const = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class Normaliser:
    """Makes normalised audio until ``stopping`` is set."""

    settings: Settings
    store: ObjectStore
    decoder: MediaDecoder
    stopping: threading.Event

    def __call__(self, run: ObjectRun) -> Normalised:
        """Fetch, decode and store ``run``'s object. Audio that a former process has stored is used again.

        Raises:
            RefusedError: The object can't be transcribed, now or later.
            StoreError: The store is away, or fails for this object.
            LocalError: The scratch disk is full for now, or fails.
            ProcessError: No child could be started to decode it, or the child was lost.
            StoppedError: ``stopping`` was set.
        """
        bucket, key = self.settings.work_bucket, normalised_key(RunKey(run.tenant, run.stream, run.run))
        stat = self.store.stat(run.media)
        source = _source(run, stat)
        if (found := self._stored(bucket, key, source)) is not None:
            return found
        with self._scratch(stat.size) as file:
            self.store.fetch(run.media, _Watched(file, self._check), stat)
            mix = run.media.options.channels == "mix"
            with self.decoder.decode(cast("BinaryIO", file), mix=mix, track=run.media.track) as decoding:
                made = decoding.format
                notes = {"source": source, "rate": str(made.rate), "channels": str(made.channels)}
                audio = _Muted(decoding, run.media.muted, self._check)
                self.store.put(bucket, key, audio, notes)
                return Normalised(bucket, key, made.rate, made.channels, audio.samples)

    def _stored(self, bucket: str, key: str, source: str) -> Normalised | None:
        """The run's audio if it was stored before from this same object.

        Its records are then sent again at once: the pool closes a run after a quarter of an hour without one.
        """
        size, notes = self.store.notes(bucket, key) or (0, {})
        if notes.get("source") != source:
            return None
        rate, channels = int(notes["rate"]), int(notes["channels"])
        return Normalised(bucket, key, rate, channels, size // (2 * channels))

    @contextmanager
    def _scratch(self, size: int) -> Iterator[FileIO]:
        """A file for an object of ``size`` bytes. Raises ``RefusedError`` if the disk can never hold it."""
        scratch = self.settings.data / "scratch"
        try:
            scratch.mkdir(parents=True, exist_ok=True)
            disk = shutil.disk_usage(scratch)
            if size > disk.total:
                raise RefusedError(Reason.OBJECT_EXCEEDS_SCRATCH)
            if size > disk.free:
                raise LocalError(_no_room(scratch, size))
            # Without a name: a killed process leaves no file. Without a buffer: a write to a full disk fails at once.
            opened = tempfile.TemporaryFile(dir=scratch, buffering=0)  # noqa: SIM115  # closed below
        except OSError as error:
            raise LocalError(error) from error
        with opened as file:
            try:
                yield file
            except LocalError as error:
                if error.number == errno.EFBIG:
                    raise RefusedError(Reason.OBJECT_EXCEEDS_SCRATCH) from None
                if error.number in _FULL:
                    raise LocalError(_no_room(scratch, size)) from None
                raise

    def _check(self) -> None:
        if self.stopping.is_set():
            raise StoppedError


def _source(run: ObjectRun, stat: Stat) -> str:
    """A digest that is equal only for the same bytes with the same options."""
    asked = run.media.model_dump_json(exclude={"options": {"metadata", "vocabulary"}})
    what = (asked, stat.version, stat.etag, stat.size)
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def _no_room(scratch: Path, size: int) -> str:
    return f"an object of {size >> 20} MiB does not fit {scratch}, which has {shutil.disk_usage(scratch).free >> 20} MiB left"


class _Watched:
    """A file to download into. A write raises when the process must stop."""

    def __init__(self, file: FileIO, check: Callable[[], None]) -> None:
        self._file, self._check = file, check

    def write(self, data: bytes, /) -> int:
        self._check()
        left = memoryview(data)
        while left:  # a raw file may write fewer bytes than it gets
            left = left[self._file.write(left) or 0 :]
        return len(data)


class _Muted:
    """Decoded PCM to upload, with muted ranges silenced.

    At the end it checks that the whole file was decoded. If not, the upload fails, and the store keeps none of it.
    """

    def __init__(self, decoding: Decoding, muted: tuple[tuple[int, int], ...], check: Callable[[], None]) -> None:
        self._decoding, self._check = decoding, check
        self._ranges = muted_samples(muted, decoding.format.rate)
        self.samples = 0
        self._block = b""
        self._at = 0

    def read(self, size: int = -1, /) -> bytes:
        if self._at == len(self._block):
            self._next()
        end = len(self._block) if size < 0 else min(self._at + size, len(self._block))
        piece = self._block[self._at : end]
        self._at = end
        return piece

    def _next(self) -> None:
        self._check()
        form = self._decoding.format
        block = self._decoding.read(_BLOCK_SAMPLES)
        self._at, self._block = 0, block
        if not block:
            self._decoding.finish()
            return
        first, count = self.samples, len(block) // form.width
        self.samples += count
        inside = tuple((a, b) for a, b in self._ranges if a < first + count and b > first)
        if inside:
            self._block = silence(block, form.channels, first, inside)
