"""How far a file is, told to readers every few seconds. It counts finals that are committed, so it never goes back."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final as Const

from kaption_gpu.lanes.records import Incoming
from kaption_schemas.records import FinalTranscript, StreamProgress

#: Milliseconds between two records of one file.
TELL_MS: Const = 2000


@dataclass(slots=True)
class FileProgress:
    """One file's progress. A pure state machine.

    After a restart it knows no more than the finals since then; each tells its place in the run, so that is enough.
    """

    _total_ms: int | None = None
    _channels: int = 1
    _ends: dict[int, FinalTranscript] = field(default_factory=dict)
    _told_ms: int = 0

    def heard(self, chunk: Incoming, *, split: bool) -> None:
        """Note what a chunk says of its file: the length, and how many channels are transcribed."""
        audio = chunk.audio
        self._channels = audio.channels if split else 1
        if chunk.total_samples is not None:
            self._total_ms = chunk.total_samples * 1000 // audio.rate

    def after(self, finals: Iterable[FinalTranscript], now_ms: int) -> StreamProgress | None:
        """What to tell once ``finals`` are committed; None when there is nothing new, or it was told a moment ago."""
        new = {final.channel: final for final in finals}
        self._ends |= new
        if not new or 0 <= now_ms - self._told_ms < TELL_MS or len(self._ends) < self._channels:
            return None
        self._told_ms = now_ms
        ends = self._ends.values()
        last = min(ends, key=lambda final: final.end_ms)
        return StreamProgress(
            tenant=last.tenant, stream=last.stream, run=last.run, done_ms=last.end_ms, total_ms=self._total_ms,
            segments=sum(final.segment + 1 for final in ends),
        )  # fmt: skip
