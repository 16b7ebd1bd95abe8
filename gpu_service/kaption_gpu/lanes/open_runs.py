"""Keeps the open runs of a lane by key, and those of one stream in order. Only a stream's first run is published."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from aiokafka.structs import ConsumerRecord

from kaption.domain.pool.ports import LaneSession
from kaption.domain.records import Latency, RunKey
from kaption_gpu.lanes.file_progress import FileProgress
from kaption_schemas.records import FinalTranscript, Gap, StreamCompleted


@dataclass(slots=True, eq=False)
class OpenRun:
    """One open run. ``needs`` is the replay point of its stored snapshot.

    ``raw`` are the records that may still be dead-lettered, by offset. ``until_ms`` bounds the covered records in a log that
    was cut off. ``judged``: an earlier owner has taken or refused the run's records up to this offset, and reported the
    refused ones. ``backlog``, ``undecoded`` and ``settled`` are the session's last values (``OpenRuns.note``).
    """

    key: RunKey
    session: LaneSession
    began: int
    covered: int
    needs: int
    saved_ms: int
    touched: bool = False
    superseded: bool = False
    turned_away: bool = False
    pending: list[FinalTranscript | Gap | StreamCompleted] = field(default_factory=list)
    raw: dict[int, ConsumerRecord] = field(default_factory=dict)
    trace: Mapping[str, str] = field(default_factory=dict)
    ref: tuple[str, str] | None = None
    #: The newest frame's end in samples, its rate, and the broker's time of its receipt. They give a sample's wall time.
    anchor: tuple[int, int, int] | None = None
    #: The progress of a file; a live run has none.
    progress: FileProgress | None = None
    until_ms: int | None = None
    judged: int = -1
    backlog: float = 0.0
    undecoded: bool = False
    settled: int | None = None

    def covers(self, offset: int, timestamp_ms: int) -> bool:
        """Whether the snapshot from which it was restored covers a record at ``offset`` with this timestamp."""
        return offset < self.covered and (self.until_ms is None or timestamp_ms <= self.until_ms)

    def forget_decided(self) -> None:
        """Keep only records that may still be dead-lettered: with a backlog, memory would hold each record and its audio."""
        kept = set(self.session.undecided)
        self.raw = {offset: record for offset, record in self.raw.items() if offset in kept}

    def reached(self, position: int) -> int:
        """The replay point of the session's current state. ``position`` is the offset of the lane's next record."""
        if self.session.closed:  # a replay may close it with fewer records than the earlier owner took
            return max(position, self.judged + 1)
        return position if self.settled is None else self.settled

    def lateness(self, second: float, now_ms: int) -> float | None:
        """Seconds since the broker received the audio at ``second`` of a live run. None for a file, or if it is unknown."""
        if self.anchor is None or self.session.latency is not Latency.LIVE:
            return None
        end, rate, received_ms = self.anchor
        return (now_ms - received_ms) / 1000 + end / rate - second

    @property
    def split(self) -> bool:
        """Whether each channel has a transcript of its own."""
        return self.session.options.channels == "split"


class OpenRuns:
    """The open runs of a lane. Each call takes time for the runs of one stream at most.

    A lane may have thousands of streams, and calls this for each record. ``backlog`` is the number of seconds of audio in
    all runs that no final covers yet.
    """

    def __init__(self) -> None:
        self.backlog = 0.0
        self._runs: dict[RunKey, OpenRun] = {}
        self._streams: dict[tuple[str, str], list[OpenRun]] = {}
        self._tenants: Counter[str] = Counter()
        self._undecoded = 0
        self._due: dict[RunKey, OpenRun] = {}

    @property
    def undecoded(self) -> bool:
        """Whether a closed segment of any run waits for its decode, or is being decoded."""
        return self._undecoded > 0

    @property
    def due(self) -> int:
        """The number of runs with outputs for a transaction, including runs that wait for an earlier run."""
        return len(self._due)

    @property
    def by_tenant(self) -> Counter[str]:
        """The number of open runs of each tenant."""
        return self._tenants

    @property
    def pending(self) -> bool:
        """Whether any run has outputs for a transaction now."""
        return any(not self.waits(run) for run in self._due.values())

    def note(self, run: OpenRun) -> None:
        """Update the totals for ``run``. Call it after each call of its session, and after its outputs were taken."""
        session = run.session
        before, run.backlog = run.backlog, session.backlog_seconds()
        self.backlog += run.backlog - before
        undecoded, run.undecoded = run.undecoded, session.undecoded()
        self._undecoded += run.undecoded - undecoded
        run.settled = session.settled_offset()
        if run.pending or session.closed:
            self._due[run.key] = run
        else:
            self._due.pop(run.key, None)

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[OpenRun]:
        """All runs, in the order in which they were added."""
        return iter(self._runs.values())

    def __getitem__(self, key: RunKey) -> OpenRun:
        return self._runs[key]

    def get(self, key: RunKey) -> OpenRun | None:
        """The run, if it is open."""
        return self._runs.get(key)

    def add(self, run: OpenRun) -> None:
        """Add a newly opened run."""
        self._runs[run.key] = run
        beside = self._streams.setdefault(_stream(run), [])
        beside.append(run)
        beside.sort(key=lambda other: other.began)
        self._tenants[run.key.tenant] += 1
        self.note(run)

    def remove(self, run: OpenRun) -> None:
        """Remove a closed run."""
        del self._runs[run.key]
        beside = self._streams[_stream(run)]
        beside.remove(run)
        if not beside:
            del self._streams[_stream(run)]
        self._tenants[run.key.tenant] -= 1
        if not self._tenants[run.key.tenant]:
            del self._tenants[run.key.tenant]
        self._undecoded -= run.undecoded
        self._due.pop(run.key, None)
        self.backlog = self.backlog - run.backlog if self._runs else 0.0

    def before(self, run: OpenRun) -> Sequence[OpenRun]:
        """The runs of its stream that began before it."""
        if not self.waits(run):
            return ()
        return [other for other in self._streams[_stream(run)] if other.began < run.began]

    def waits(self, run: OpenRun) -> bool:
        """Whether it waits for an earlier run of its stream that is still open."""
        return self._streams[_stream(run)][0].began < run.began

    def followed(self, run: OpenRun) -> bool:
        """Whether a later run of its stream waits for it."""
        last = self._streams[_stream(run)][-1]
        return last.began > run.began and not last.session.ended

    def ready(self) -> Iterator[OpenRun]:
        """The runs that do not wait for another."""
        return (run for run in self._runs.values() if not self.waits(run))


def _stream(run: OpenRun) -> tuple[str, str]:
    return run.key.tenant, run.key.stream
