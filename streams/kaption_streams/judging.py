"""Runs a stage on one record so that a failure becomes a refusal and does not end the process."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from typing import Final as Const

from kaption.domain.intake.refusal import Refusal
from kaption.domain.intake.stages import is_quick, refusal
from kaption_schemas.codec import Event, Origin, is_undecodable
from kaption_schemas.errors import StuckError
from kaption_schemas.reasons import Reason

log = logging.getLogger(__name__)

#: Tries of a stage that fails, and the seconds that one may take. A record usually takes some milliseconds.
ATTEMPTS: Const = 2
STAGE_SECONDS: Const = 5.0


#: Stages that timed out and still run, each in a thread of its own, and the number of them that a process tolerates.
_hung: Const[set[Future[Any]]] = set()
MOST_HUNG: Const = 3
_threads: Const = ThreadPoolExecutor(MOST_HUNG + 1, "stage")


async def judge(
    origin: Origin,
    stage: str,
    work: Callable[[Origin], list[Event] | Refusal],
    seconds: float = STAGE_SECONDS,
) -> list[Event] | Refusal:
    """Run ``work`` on ``origin``. Returns a refusal if it fails at each try, or takes longer than ``seconds``.

    It runs in a thread, unless it is quick: a text may keep a recogniser busy, and a container a decoder. The next input
    still waits, to keep the order; the process's heartbeats and deliveries do not.

    Raises ``OSError`` and ``MemoryError``: these are the machine's fault and not the record's, so a new process tries again.
    Raises ``StuckError`` when ``MOST_HUNG`` stages hang, since only the end of the process can end them.
    """
    if is_undecodable(origin.headers):
        return Refusal(Reason.UNDECODABLE_BATCH, stage)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            if is_quick(origin):
                return work(origin)
            return await _in_thread(work, origin, seconds)
        except TimeoutError:
            return refusal(origin, Reason.TOO_COSTLY, stage)
        except (OSError, MemoryError, StuckError):
            raise
        except Exception:  # an untrusted record may make a stage raise anything
            extra = {"stage": stage, "topic": origin.topic, "offset": origin.offset, "attempt": attempt}
            log.exception("stage_failed", extra=extra)
    return refusal(origin, Reason.INTERNAL_ERROR, stage)


async def _in_thread(
    work: Callable[[Origin], list[Event] | Refusal], origin: Origin, seconds: float
) -> list[Event] | Refusal:
    running = _threads.submit(work, origin)
    try:
        return await asyncio.wait_for(asyncio.wrap_future(running), seconds)
    except TimeoutError:
        if not running.done():
            _hung.add(running)
            running.add_done_callback(_hung.discard)
        if len(_hung) >= MOST_HUNG:
            raise StuckError from None
        raise
