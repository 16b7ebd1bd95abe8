"""Groups a lane's memory for its parts: open runs, closed runs, dead letters, and the sessions' outputs."""

from dataclasses import dataclass

from kaption_gpu.lanes.closed_runs import ClosedRuns
from kaption_gpu.lanes.data import Source
from kaption_gpu.lanes.letters import Letters
from kaption_gpu.lanes.open_runs import OpenRuns
from kaption_gpu.lanes.outputs import Outputs


@dataclass(frozen=True, slots=True)
class Book:
    """The memory of one lane."""

    source: Source
    runs: OpenRuns
    closed: ClosedRuns
    letters: Letters
    outputs: Outputs
