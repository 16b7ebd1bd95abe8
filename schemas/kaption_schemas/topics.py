"""Defines the topic map: each topic's records, key, retention and owner.

All code that creates, checks or documents a topic reads this table; nothing else names one.
It must not know how a broker is reached (``kaption.adapters``) or what a record means (``kaption.domain``).
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final as Const

DEFAULT_TENANT: Const = "default"
TENANT_PATTERN: Const = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
#: Names that a tenant can't have: with one before the dot, a grant on the tenant's topics or groups would include Kaption's.
RESERVED_TENANTS: Const = frozenset({"audio", "kaption", "media", "transcripts"})
#: A name that may be a part of a path: neither ``.`` nor ``..``. It uses no lookahead, which other schema readers may lack.
STREAM_PATTERN: Const = re.compile(
    r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}|\.[A-Za-z0-9_-][A-Za-z0-9._-]{0,126}|\.\.[A-Za-z0-9._-]{1,126}"
)
#: A ULID: 26 characters of Crockford's base 32 (https://github.com/ulid/spec), upper case.
RUN_PATTERN: Const = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")

MINUTE_MS: Const = 60_000
HOUR_MS: Const = 60 * MINUTE_MS
DAY_MS: Const = 24 * HOUR_MS
MIB: Const = 1 << 20


class Type(StrEnum):
    """``ce_type`` of each record."""

    STARTED = "kaption.stream.started"
    FRAME = "kaption.audio.frame"
    ENDED = "kaption.stream.ended"
    REFUSED = "kaption.stream.refused"
    OBJECT = "kaption.media.object"
    CHUNK = "kaption.audio.chunk"
    GAP = "kaption.audio.gap"
    PARTIAL = "kaption.transcript.partial"
    FINAL = "kaption.transcript.final"
    COMPLETED = "kaption.stream.completed"
    PROGRESS = "kaption.stream.progress"
    SNAPSHOT = "kaption.state.snapshot"
    CLAIM = "kaption.state.claim"


class Owner(StrEnum):
    """The owner of a topic: a tenant owns an ``EDGE`` topic, with a prefix, and the service an ``INNER`` one."""

    EDGE = "edge"
    INNER = "inner"


@dataclass(frozen=True, slots=True)
class Topic:
    """One row of the map.

    ``name`` is unprefixed; ``max_bytes`` is the broker's ``max.message.bytes``; ``retention_ms`` -1 keeps records without end.
    With ``append_time`` the broker stamps each record with its append time, and latency is measured from it.
    """

    name: str
    types: tuple[Type, ...]
    owner: Owner
    key: str
    retention_ms: int
    max_bytes: int = MIB
    cleanup: str = "delete"
    append_time: bool = False
    staged_only: bool = False
    extra: dict[str, str] = field(default_factory=dict)

    def config(self) -> dict[str, str]:
        """Return the topic's configuration in Kafka's names."""
        out = {
            "cleanup.policy": self.cleanup,
            "retention.ms": str(self.retention_ms),
            "max.message.bytes": str(self.max_bytes),
        }
        if self.append_time:
            out["message.timestamp.type"] = "LogAppendTime"
        return out | self.extra


EVENTS: Const = Topic(
    "media.events.v1", (Type.STARTED, Type.FRAME, Type.ENDED), Owner.EDGE, "<stream>", DAY_MS, append_time=True
)
OBJECTS: Const = Topic("media.objects.v1", (Type.OBJECT,), Owner.EDGE, "<stream>", 7 * DAY_MS, append_time=True)
# 1 MiB more than any input, since a dead letter is the input with headers added (promise 1).
DLQ: Const = Topic("media.dlq.v1", (), Owner.EDGE, "as received", 14 * DAY_MS, max_bytes=2 * MIB)
# The inner audio topics carry decoded audio, which may be larger than the compressed frame it came from.
_STAGES = (Type.STARTED, Type.FRAME, Type.ENDED, Type.GAP, Type.REFUSED)
ACCEPTED: Const = Topic(
    "media.accepted.v1",
    _STAGES,
    Owner.INNER,
    "<tenant>/<stream>",
    6 * HOUR_MS,
    2 * MIB,
    append_time=True,
    staged_only=True,
)
REDACTED: Const = Topic(
    "media.redacted.v1",
    _STAGES,
    Owner.INNER,
    "<tenant>/<stream>",
    6 * HOUR_MS,
    2 * MIB,
    append_time=True,
    staged_only=True,
)
_AUDIO = (Type.STARTED, Type.CHUNK, Type.GAP, Type.ENDED, Type.REFUSED)
LIVE: Const = Topic("audio.live.v1", _AUDIO, Owner.INNER, "<tenant>/<stream>", DAY_MS, 2 * MIB, append_time=True)
BATCH: Const = Topic("audio.batch.v1", _AUDIO, Owner.INNER, "<tenant>/<stream>", 7 * DAY_MS, 2 * MIB, append_time=True)
PARTIAL: Const = Topic("transcripts.partial.v1", (Type.PARTIAL, Type.PROGRESS), Owner.EDGE, "<stream>", HOUR_MS)
FINAL: Const = Topic(
    "transcripts.final.v1", (Type.FINAL, Type.GAP, Type.COMPLETED), Owner.EDGE, "<stream>", 30 * DAY_MS
)
STATE: Const = Topic(
    "transcripts.state.v1",
    (Type.SNAPSHOT, Type.CLAIM),
    Owner.INNER,
    "<tenant>/<stream>/<run>",
    30 * DAY_MS,
    cleanup="compact,delete",
    extra={
        "segment.bytes": str(64 * MIB),
        "max.compaction.lag.ms": str(10 * MINUTE_MS),
        # A lane uses the time of its claim until the first record.
        "message.timestamp.type": "LogAppendTime",
    },
)

TOPICS: Const = (EVENTS, OBJECTS, DLQ, ACCEPTED, REDACTED, LIVE, BATCH, PARTIAL, FINAL, STATE)


def topic_name(topic: Topic, tenant: str = DEFAULT_TENANT) -> str:
    """Return the name of ``topic`` on the broker for ``tenant``: all but the default tenant prefix edge topics ``<tenant>.``."""
    if topic.owner is Owner.INNER or tenant == DEFAULT_TENANT:
        return topic.name
    return f"{tenant}.{topic.name}"


def tenant_of(name: str, topic: Topic) -> str:
    """Return the tenant of a topic name on the broker; only this names the tenant, never a record.

    Raises ``ValueError`` if ``name`` is not ``topic`` under any tenant.
    """
    if name == topic.name:
        return DEFAULT_TENANT
    tenant, dot, rest = name.partition(".")
    if dot and rest == topic.name and TENANT_PATTERN.fullmatch(tenant):
        return tenant
    raise ValueError(f"{name!r} is not {topic.name!r}, nor that with a tenant's prefix")


def tenant_of_key(key: bytes | None) -> str:
    """Return the tenant in the key of an inner topic, ``<tenant>/<stream>``; the default tenant if it names none."""
    tenant, slash, _ = (key or b"").decode("utf-8", "replace").partition("/")
    return tenant if slash and TENANT_PATTERN.fullmatch(tenant) else DEFAULT_TENANT


def topics_for(tenants: tuple[str, ...], *, staged: bool) -> dict[str, Topic]:
    """Return every topic of a deployment, by its name on the broker."""
    return {
        topic_name(topic, tenant): topic
        for topic in TOPICS
        if staged or not topic.staged_only
        for tenant in (tenants if topic.owner is Owner.EDGE else (DEFAULT_TENANT,))
    }
