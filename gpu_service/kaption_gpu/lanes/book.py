"""What a lane remembers, for the parts that work on it: open runs, closed runs, letters, and what sessions returned."""

from dataclasses import dataclass

from kaption_gpu.lanes.closed_runs import ClosedRuns
from kaption_gpu.lanes.data import Source
from kaption_gpu.lanes.letters import Letters
from kaption_gpu.lanes.open_runs import OpenRuns
from kaption_gpu.lanes.outputs import Outputs


@dataclass(frozen=True, slots=True)
class Book:
    """One lane's."""

    source: Source
    runs: OpenRuns
    closed: ClosedRuns
    letters: Letters
    outputs: Outputs
