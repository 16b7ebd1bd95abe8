"""Composes an agent process. Only this module knows which parts are used."""

import logging
from collections.abc import Awaitable, Callable
from typing import Final as Const

from kaption.adapters.media.files import MediaDecoder
from kaption.adapters.media.frames import FrameDecoder
from kaption.adapters.presidio import PresidioRedactor
from kaption.adapters.processes.confinement import filters
from kaption.adapters.store.s3 import ObjectStore
from kaption.domain.intake.stages import Tools
from kaption.service.run import Process
from kaption_streams.agent import AgentParts, run
from kaption_streams.app import Output, make_app
from kaption_streams.files import FileAgent
from kaption_streams.live import ChunkAgent, FusedAgent, RedactAgent, ValidateAgent

log = logging.getLogger(__name__)


def _parts(process: Process) -> AgentParts:
    settings = process.settings
    app = make_app(settings, process.service.group)
    return AgentParts(app, process.group, settings, process.telemetry, Output(settings))


def _warn_where_unconfined() -> None:
    """Warn if system calls can't be filtered: a compromised decoder then has all rights of its user."""
    if not filters():
        log.warning("seccomp_unavailable")


def _with_tools(kind: type[FusedAgent | RedactAgent]) -> Callable[[Process], Awaitable[None]]:
    async def work(process: Process) -> None:
        _warn_where_unconfined()
        parts, decoder = _parts(process), FrameDecoder()
        tools = Tools(PresidioRedactor(), parts.settings.redaction, decoder)
        await run(process, parts.app, kind(parts, tools))
        decoder.close()

    return work


def _alone(kind: type[ValidateAgent | ChunkAgent]) -> Callable[[Process], Awaitable[None]]:
    async def work(process: Process) -> None:
        parts = _parts(process)
        await run(process, parts.app, kind(parts))

    return work


async def _files(process: Process) -> None:
    _warn_where_unconfined()
    parts, settings = _parts(process), process.settings
    store, decoder = ObjectStore(settings), MediaDecoder(settings)
    await run(process, parts.app, FileAgent(parts, store, decoder, PresidioRedactor()))


#: The work of each service of this package, by its name.
_WORK: Const = {
    "live": _with_tools(FusedAgent),
    "validate": _alone(ValidateAgent),
    "redact": _with_tools(RedactAgent),
    "chunk": _alone(ChunkAgent),
    "files": _files,
}


async def serve(process: Process) -> None:
    """Make the agent for the process's service, and run it."""
    await _WORK[process.service.name](process)
