"""Whether a frame may stand where it says that it does: its format, its samples, and how far these are ahead of the clock.

It is judged when its turn has come. What else arrived in the meantime changes nothing then, and a replay judges alike.
"""

from dataclasses import dataclass
from typing import Final as Const

from kaption.domain.records import AudioRecord
from kaption_schemas.reasons import Reason
from kaption_schemas.records import MOST_SAMPLES

#: A jump of a live run's samples beyond the clock by more than this is a mistake, not audio sent early.
_JUMP_SECONDS: Const = 1
_LONGEST_JUMP_SECONDS: Const = 3600


@dataclass(frozen=True, slots=True)
class FrameCheck:
    """What the frame must fit whose turn it is.

    ``format``: rate and channels of the run, None before they are known. ``end``: samples that the run has. ``began_ms``: when
    sample 0 was, None where no clock is held against the samples: a file, or a run whose first frame this is. ``ahead``: seconds
    that a live run may lie ahead of it. ``anywhere``: retention took what was before, however long.
    """

    format: tuple[int, int] | None
    end: int
    began_ms: int | None
    ahead: float
    anywhere: bool

    def refusal(self, record: AudioRecord) -> Reason | None:
        """Why the frame cannot be taken; None when it can."""
        if self.format and (record.rate, record.channels) != self.format:
            return Reason.FORMAT_CHANGED
        jump = record.first_sample - self.end
        if jump < 0:
            return Reason.SAMPLES_OVERLAP
        far = jump > _LONGEST_JUMP_SECONDS * record.rate and not self.anywhere
        if far or record.first_sample + record.samples > MOST_SAMPLES:
            return Reason.SAMPLES_JUMP
        if self.began_ms is None:
            return None
        clock = (record.received_ms - self.began_ms) / 1000
        if (record.first_sample + record.samples) / record.rate - clock <= self.ahead:
            return None
        return Reason.SAMPLES_JUMP if jump > _JUMP_SECONDS * record.rate else Reason.FASTER_THAN_REALTIME


def began_ms(record: AudioRecord) -> int:
    """When sample 0 of a live run was, by its first frame: received as soon as it was spoken."""
    return record.received_ms - (record.first_sample + record.samples) * 1000 // record.rate
