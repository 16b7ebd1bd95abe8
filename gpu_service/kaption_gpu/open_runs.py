"""The open runs of a lane: by their key, and those of one stream in the order they began. Only the first of a stream goes out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from aiokafka.structs import ConsumerRecord

from kaption.domain.outputs import DeadLetter, Durable, RunKey
from kaption_gpu.ports import LaneSession
from kaption_gpu.progress import FileProgress


@dataclass(slots=True, eq=False)
class OpenRun:
    """One open run. ``needs`` is the offset that its stored snapshot must be replayed from.

    ``raw`` are the records that are to be dead-lettered, or may be, by their offset.
    """

    key: RunKey
    session: LaneSession
    began: int
    covered: int
    needs: int
    saved_ms: int
    touched: bool = False
    superseded: bool = False
    pending: list[Durable] = field(default_factory=list)
    raw: dict[int, ConsumerRecord] = field(default_factory=dict)
    trace: dict[str, str] = field(default_factory=dict)
    ref: tuple[str, str] | None = None
    #: The newest frame's end in samples, its rate, and when the broker had it: what wall time a sample is.
    anchor: tuple[int, int, int] | None = None
    #: A file's; a live run has none.
    progress: FileProgress | None = None

    def forget_decided(self) -> None:
        """Keep only records that may have to be dead-lettered: a backlog would hold each of them beside its audio."""
        kept = {*self.session.undecided, *(o.offset for o in self.pending if isinstance(o, DeadLetter))}
        self.raw = {offset: record for offset, record in self.raw.items() if offset in kept}

    @property
    def split(self) -> bool:
        """Whether each channel has texts of its own."""
        return self.session.options.channels == "split"


class OpenRuns:
    """Every question takes time for the runs of one stream at most: a lane may have hundreds of streams."""

    def __init__(self) -> None:
        self._runs: dict[RunKey, OpenRun] = {}
        self._streams: dict[tuple[str, str], list[OpenRun]] = {}

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[OpenRun]:
        """All, as they were added."""
        return iter(self._runs.values())

    def __getitem__(self, key: RunKey) -> OpenRun:
        return self._runs[key]

    def get(self, key: RunKey) -> OpenRun | None:
        """The run, if it is open."""
        return self._runs.get(key)

    def add(self, run: OpenRun) -> None:
        """Take a run that is opened."""
        self._runs[run.key] = run
        beside = self._streams.setdefault(_stream(run), [])
        beside.append(run)
        beside.sort(key=lambda other: other.began)

    def remove(self, run: OpenRun) -> None:
        """Forget a run that is closed."""
        del self._runs[run.key]
        beside = self._streams[_stream(run)]
        beside.remove(run)
        if not beside:
            del self._streams[_stream(run)]

    def before(self, run: OpenRun) -> Sequence[OpenRun]:
        """Those of its stream that began before it."""
        return [other for other in self._streams[_stream(run)] if other.began < run.began]

    def waits(self, run: OpenRun) -> bool:
        """Whether an earlier run of its stream is still open, after which it goes out."""
        return self._streams[_stream(run)][0].began < run.began

    def followed(self, run: OpenRun) -> bool:
        """Whether its stream goes on with a later run, which waits for it."""
        last = self._streams[_stream(run)][-1]
        return last.began > run.began and not last.session.ended

    def ready(self) -> Iterator[OpenRun]:
        """Those that do not wait."""
        return (run for run in self._runs.values() if not self.waits(run))


def _stream(run: OpenRun) -> tuple[str, str]:
    return run.key.tenant, run.key.stream
