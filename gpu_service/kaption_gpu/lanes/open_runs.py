"""The open runs of a lane: by their key, and those of one stream in the order they began. Only the first of a stream goes out."""

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
    """One open run. ``needs`` is the offset that its stored snapshot must be replayed from.

    ``raw`` are the records that may still be dead-lettered, by their offset. ``until_ms`` bounds what is covered, in a log
    that was cut off. ``judged``: an earlier owner has judged the run's records up to this offset, and told what it refused.
    ``backlog``, ``undecoded`` and ``settled`` are what its session said last (``OpenRuns.note``).
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
    #: The newest frame's end in samples, its rate, and when the broker had it: what wall time a sample is.
    anchor: tuple[int, int, int] | None = None
    #: A file's; a live run has none.
    progress: FileProgress | None = None
    until_ms: int | None = None
    judged: int = -1
    backlog: float = 0.0
    undecoded: bool = False
    settled: int | None = None

    def covers(self, offset: int, timestamp_ms: int) -> bool:
        """Whether the snapshot that it was restored from covers a record at ``offset``, of that time."""
        return offset < self.covered and (self.until_ms is None or timestamp_ms <= self.until_ms)

    def forget_decided(self) -> None:
        """Keep only records that may have to be dead-lettered: a backlog would hold each of them beside its audio."""
        kept = set(self.session.undecided)
        self.raw = {offset: record for offset, record in self.raw.items() if offset in kept}

    def reached(self, position: int) -> int:
        """The offset that the session, as it is now, must be replayed from; ``position`` is that of the lane's next record."""
        if self.session.closed:  # a replay may close it by fewer records than the earlier owner had judged
            return max(position, self.judged + 1)
        return position if self.settled is None else self.settled

    def lateness(self, second: float, now_ms: int) -> float | None:
        """Seconds since the broker had the audio at ``second`` of a live run; None of others, and where it is not known."""
        if self.anchor is None or self.session.latency is not Latency.LIVE:
            return None
        end, rate, received_ms = self.anchor
        return (now_ms - received_ms) / 1000 + end / rate - second

    @property
    def split(self) -> bool:
        """Whether each channel has texts of its own."""
        return self.session.options.channels == "split"


class OpenRuns:
    """Every question takes time for the runs of one stream at most: a lane may have thousands of streams, and is asked at each record.

    ``backlog`` are seconds of audio that no final covers yet, in all runs.
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
        """Whether a closed segment of any run waits for its decode, or is in it."""
        return self._undecoded > 0

    @property
    def due(self) -> int:
        """How many have something for a transaction, though some may have to wait for the run before them."""
        return len(self._due)

    @property
    def by_tenant(self) -> Counter[str]:
        """How many are whose."""
        return self._tenants

    @property
    def pending(self) -> bool:
        """Whether any has something for a transaction now."""
        return any(not self.waits(run) for run in self._due.values())

    def note(self, run: OpenRun) -> None:
        """See what has become of ``run``; to be called whenever its session was, and when its outputs were taken."""
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
        self._tenants[run.key.tenant] += 1
        self.note(run)

    def remove(self, run: OpenRun) -> None:
        """Forget a run that is closed."""
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
        """Those of its stream that began before it."""
        if not self.waits(run):
            return ()
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
