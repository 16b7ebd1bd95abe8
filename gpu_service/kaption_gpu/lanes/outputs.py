"""Collects the outputs of a lane's sessions: partials to send, dead letters, and outputs that wait for a transaction.

A session that raises would raise again after a restart and block every other run of its lane, so its run is closed.
"""

from collections.abc import Callable, Sequence

from kaption.domain.pool.ports import LaneSession
from kaption.domain.records import Output, Refused
from kaption_gpu.lanes.data import Shown
from kaption_gpu.lanes.letters import Letters
from kaption_gpu.lanes.open_runs import OpenRun, OpenRuns
from kaption_schemas.codec import Message, encode_transcript
from kaption_schemas.reasons import Reason
from kaption_schemas.records import PartialTranscript


class Outputs:
    """Outputs of one lane's sessions. The caller that sends, counts or logs ``partials``, ``shown`` and ``faults`` clears them.

    ``faults`` are the types of the sessions' exceptions.
    """

    def __init__(self, runs: OpenRuns, letters: Letters) -> None:
        self.partials: list[Message] = []
        self.shown: list[Shown] = []
        self.faults: list[str] = []
        self._runs = runs
        self._letters = letters

    def ask(self, run: OpenRun, now_ms: int, call: Callable[[LaneSession], Sequence[Output] | None]) -> bool:
        """Call a run's session, and keep its outputs. Returns whether it did not return None. A run that raises is closed."""
        try:
            outputs = call(run.session)
        except Exception as error:  # noqa: BLE001  # any error of its redactor or detector is this one run's fault
            self.faults.append(type(error).__name__)
            outputs = run.session.give_up(Reason.INTERNAL_ERROR)
        if outputs is None:
            return False
        self.keep(run, outputs, now_ms)
        return True

    def keep(self, run: OpenRun, outputs: Sequence[Output], now_ms: int) -> None:
        """Keep the outputs of a run's session."""
        for output in outputs:
            if isinstance(output, PartialTranscript):
                self.partials.append(encode_transcript(output, run.trace, split=run.split))
                self._note_shown(run, output, now_ms)
            elif isinstance(output, Refused):
                self._letters.add(run.raw[output.offset], output.reason, run.key)
                run.touched = True
            else:
                run.pending.append(output)
                run.touched = True
        self._runs.note(run)

    def close(self, run: OpenRun, reason: Reason, now_ms: int) -> None:
        """Close a run, and keep its last outputs."""

        def closed(session: LaneSession) -> Sequence[Output]:
            session.close(reason, now_ms)
            return session.tick(now_ms)

        run.touched = True
        self.ask(run, now_ms, closed)

    def _note_shown(self, run: OpenRun, partial: PartialTranscript, now_ms: int) -> None:
        late = run.lateness(partial.end_ms / 1000, now_ms)
        if late is not None:
            first = run.lateness(partial.start_ms / 1000, now_ms) if partial.revision == 1 else None
            self.shown.append(Shown(late, first, partial.language))
