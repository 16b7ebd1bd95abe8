"""What becomes of a record that a stage refuses, and what it leaves in its run."""

from dataclasses import dataclass

from kaption_schemas.codec import Event, Head
from kaption_schemas.reasons import Reason
from kaption_schemas.records import Gap, StreamRefused
from kaption_schemas.topics import Type


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an event goes no further; ``mark`` is what it leaves in its run, where that is known.

    ``detail`` says more in words, and nothing of what was published.
    """

    reason: Reason
    stage: str
    mark: Event | None = None
    detail: str = ""


def mark_of(head: Head, reason: Reason) -> Event:
    """What a refused event leaves in its run.

    A frame leaves a gap, so that its session does not wait for it; a ``started`` or an object a ``kaption.stream.refused``: the
    frames that follow would else be taken under a weaker policy than was asked for, and whoever waits for the run hears of it.
    """
    if head.kind is not Type.FRAME:
        return head._replace(kind=Type.REFUSED).event(StreamRefused(reason=reason))
    gap = Gap(
        run=head.run, first_sequence=head.sequence, last_sequence=head.sequence, first_sample=head.first_sample,
        samples=0, reason=reason,
    )  # fmt: skip
    return head._replace(kind=Type.GAP, mute=()).event(gap)
