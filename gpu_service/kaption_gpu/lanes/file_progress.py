"""Reports a file's progress to readers every few seconds. It counts committed finals, so it never decreases."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final as Const

from kaption_gpu.lanes.records import Incoming
from kaption_schemas.records import FinalTranscript, StreamProgress

#: Milliseconds between two progress records of one file.
TELL_MS: Const = 2000


@dataclass(slots=True)
class FileProgress:
    """One file's progress. A pure state machine.

    After a restart it knows only the finals since then. That is enough, since each has its position in the run.
    """

    _total_ms: int | None = None
    _channels: int = 1
    _ends: dict[int, FinalTranscript] = field(default_factory=dict)
    _told_ms: int = 0

    def heard(self, chunk: Incoming, *, split: bool) -> None:
        """Note a file's length and its number of transcribed channels, from a chunk."""
        audio = chunk.audio
        self._channels = audio.channels if split else 1
        if chunk.total_samples is not None:
            self._total_ms = chunk.total_samples * 1000 // audio.rate

    def after(self, finals: Iterable[FinalTranscript], now_ms: int) -> StreamProgress | None:
        """The progress to publish once ``finals`` are committed. None if it has not changed, or was just published."""
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
