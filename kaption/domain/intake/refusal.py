"""Describes a record that a stage refuses, and the event that it leaves in its run."""

from dataclasses import dataclass

from kaption_schemas.codec import Event, Head
from kaption_schemas.reasons import Reason
from kaption_schemas.records import Gap, StreamRefused
from kaption_schemas.topics import Type


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason why an event is refused. ``mark`` is the event that it leaves in its run, if the run is known.

    ``detail`` explains the reason in words, and quotes nothing that was published.
    """

    reason: Reason
    stage: str
    mark: Event | None = None
    detail: str = ""


def mark_of(head: Head, reason: Reason) -> Event:
    """The event that a refused event leaves in its run.

    A frame leaves a gap, so that its session does not wait for it. A ``started`` or an object leaves a
    ``kaption.stream.refused``: without it, the frames that follow would be taken under a weaker policy than the run asked
    for, and readers of the run would not learn of the refusal.
    """
    if head.kind is not Type.FRAME:
        return head._replace(kind=Type.REFUSED).event(StreamRefused(reason=reason))
    gap = Gap(
        run=head.run, first_sequence=head.sequence, last_sequence=head.sequence, first_sample=head.first_sample,
        samples=0, reason=reason,
    )  # fmt: skip
    return head._replace(kind=Type.GAP, mute=()).event(gap)
