"""A service that does nothing, in the shell of all: ``python -m tests.support.shell_service MODE``.

Modes: ``well`` starts and drains; ``starting`` never has started and takes no notice of its cancellation; ``fails`` ends by an error once it has started.
"""

import asyncio
import sys

from aiohttp import web

from kaption.service.run import Process, run_service
from kaption.service.services import Service

ROW = Service("nothing", "it waits", "tests.support.shell_service", "", "nothing", (), ())


async def hello(_: web.Request) -> web.Response:
    return web.Response(text="hello")


async def serve(process: Process) -> None:
    while sys.argv[1] == "starting":
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            continue
    process.started.set()
    process.health.ready = True
    if sys.argv[1] == "fails":
        raise LookupError("a secret")
    await process.stop.wait()


if __name__ == "__main__":
    run_service(ROW, serve, [web.get("/hello", hello)])
