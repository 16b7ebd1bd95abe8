"""Checks a frame against its run: its format, its position, and how far its samples are ahead of the clock.

A frame is checked when its turn comes. Records that arrived in the meantime have no influence, so a replay decides alike.
"""

from dataclasses import dataclass
from typing import Final as Const

from kaption.domain.records import AudioRecord
from kaption_schemas.reasons import Reason
from kaption_schemas.records import MOST_SAMPLES

#: A live run's samples that jump ahead of the clock by more than this are a mistake, not audio sent early. In seconds.
_JUMP_SECONDS: Const = 1
_LONGEST_JUMP_SECONDS: Const = 3600


@dataclass(frozen=True, slots=True)
class FrameCheck:
    """The limits for the next frame.

    ``format``: rate and channels of the run, None before they are known. ``end``: the run's number of samples. ``began_ms``:
    the time of sample 0, None where samples have no clock (a file, or the first frame of a run). ``ahead``: seconds that a
    live run may be ahead of the clock. ``anywhere``: retention deleted the audio before, of unknown length.
    """

    format: tuple[int, int] | None
    end: int
    began_ms: int | None
    ahead: float
    anywhere: bool

    def refusal(self, record: AudioRecord) -> Reason | None:
        """The reason to refuse the frame, None to take it."""
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
    """The time of sample 0 of a live run in ms, from its first frame: the broker received that as soon as it was spoken."""
    return record.received_ms - (record.first_sample + record.samples) * 1000 // record.rate
