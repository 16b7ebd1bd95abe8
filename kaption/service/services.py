"""Defines the table of Kaption's services: one row for each kind of process.

``kaption up`` starts and stops processes by this table. A process finds its own row by its command line. The start-up
check reads the topics from it, and docs/operations.md shows it. docs/changing.md says what a new row needs.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final as Const
from typing import Literal

from kaption.adapters.settings import Settings
from kaption_schemas.topics import (
    ACCEPTED,
    BATCH,
    DLQ,
    EVENTS,
    FINAL,
    LIVE,
    OBJECTS,
    PARTIAL,
    REDACTED,
    STATE,
    Topic,
)

#: External dependencies of services, by the names that they have in ``kaption up``.
BROKER: Const = "kafka"
STORE: Const = "s3"


@dataclass(frozen=True, slots=True)
class Service:
    """A kind of process.

    ``python -m <module> <arguments>`` starts one; the package's ``extra`` must be installed. Its topics are ``reads`` and
    ``writes``. Its consumer group is ``group`` after the settings' prefix. It can't be ready without the dependencies in
    ``needs``. It runs only where ``KAPTION_STAGES`` is its ``stages``; with None it always runs. ``stops_after`` names services
    that stop first, since they feed it. ``kaption up`` starts ``count`` of it, numbered from 1; with None it starts one, under
    the service's own name.
    """

    name: str
    what: str
    module: str
    extra: str
    group: str
    reads: tuple[Topic, ...]
    writes: tuple[Topic, ...]
    arguments: tuple[str, ...] = ()
    needs: tuple[str, ...] = (BROKER,)
    stages: Literal["fused", "staged"] | None = None
    stops_after: tuple[str, ...] = ()
    count: Callable[[Settings], int] | None = None

    @property
    def topics(self) -> tuple[Topic, ...]:
        """All topics of the service, each once."""
        return (*self.reads, *(topic for topic in self.writes if topic not in self.reads))

    @property
    def command(self) -> tuple[str, ...]:
        """The interpreter's arguments that start one."""
        return ("-m", self.module, *self.arguments)

    def names(self, settings: Settings) -> tuple[str, ...]:
        """The names of the processes that ``kaption up`` starts."""
        if self.count is None:
            return (self.name,)
        return tuple(f"{self.name}-{number}" for number in range(1, self.count(settings) + 1))


def _stage(name: str, what: str, group: str, reads: Topic, writes: Topic) -> Service:
    return Service(
        name, what, "kaption_streams", "streams", group, (reads,), (writes, DLQ), ("live", "--stage", name),
        stages="staged",
    )  # fmt: skip


SERVICES: Const = (
    Service(
        "live", "the three stages of live audio in one agent", "kaption_streams", "streams", "streams", (EVENTS,),
        (LIVE, DLQ), ("live",), stages="fused",
    ),
    # It has the group of the fused agent, so after a change of KAPTION_STAGES each continues at the offset of the other.
    _stage("validate", "the first stage alone: refuses what is not valid", "streams", EVENTS, ACCEPTED),
    _stage("redact", "the second: decodes frames, mutes, and redacts metadata", "streams.redact", ACCEPTED, REDACTED),
    _stage("chunk", "the third: frames become chunks", "streams.chunk", REDACTED, LIVE),
    Service(
        "files", "objects of the store, decoded and normalised", "kaption_streams", "streams", "files", (OBJECTS,),
        (BATCH, DLQ), ("files",), needs=(BROKER, STORE),
    ),
    Service(
        "pool", "a worker that transcribes; files' audio comes from the store", "kaption_gpu", "gpu", "pool",
        (LIVE, BATCH, STATE), (STATE, PARTIAL, FINAL, DLQ), stops_after=("live", "validate", "redact", "chunk", "files"),
        count=lambda settings: settings.workers,
    ),
)  # fmt: skip


def find(module: str, arguments: Sequence[str]) -> Service | None:
    """The service that a command line starts. None if it starts none."""
    return next((one for one in SERVICES if one.module == module and one.arguments == tuple(arguments)), None)


def usage(module: str) -> str:
    """The valid arguments after ``python -m <module>``, for a user who typed others."""
    lines = (" ".join(("python", *one.command)) for one in SERVICES if one.module == module)
    return "usage: " + "\n       ".join(lines)


def running(settings: Settings) -> tuple[Service, ...]:
    """The services of a deployment with these settings."""
    return tuple(one for one in SERVICES if one.stages in (None, settings.stages))


def stop_order(services: Iterable[Service]) -> list[tuple[Service, ...]]:
    """Groups of services in the order of their stop: each stops after all services that feed it.

    Raises:
        ValueError: Two services stop after each other.
    """
    left, groups = list(services), []
    while left:
        waiting = {one.name for one in left}
        group = tuple(one for one in left if waiting.isdisjoint(one.stops_after))
        if not group:
            raise ValueError(f"{', '.join(sorted(waiting))} stop after each other")
        groups.append(group)
        left = [one for one in left if one not in group]
    return groups
