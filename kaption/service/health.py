"""Runs the small HTTP server of each process for liveness, readiness and metrics.

The process decides when it is ready, and may add paths.
"""

from collections.abc import Callable, Sequence
from typing import Final as Const

from aiohttp import web

from kaption.adapters.settings import Settings

PROMETHEUS_TEXT: Const = "text/plain; version=0.0.4; charset=utf-8"


class Health:
    """Serves ``/health`` (200), ``/ready`` (200 when ``ready``, else 503) and ``/metrics`` (Prometheus text).

    ``metrics`` renders the metrics, for example ``Telemetry.prometheus``; without it, ``/metrics`` is empty. ``routes`` are
    further paths of the service.
    """

    def __init__(self, metrics: Callable[[], str] | None = None, routes: Sequence[web.AbstractRouteDef] = ()) -> None:
        self.ready = False
        self.port = 0
        self._metrics = metrics
        self._routes = routes
        self._runner: web.AppRunner | None = None
        self._name = ""

    async def start(self, settings: Settings, name: str) -> int:
        """Listen on ``settings.http_host:http_port`` (0 takes a free port), and return the port.

        Raises ``OSError`` if the port is in use.
        """
        self._name = name
        app = web.Application()
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/ready", self._ready),
                web.get("/metrics", self._render),
                *self._routes,
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, settings.http_host, settings.http_port)
        try:
            await site.start()
        except OSError:
            await self.stop()
            raise
        self.port = int(self._runner.addresses[0][1])
        return self.port

    async def stop(self) -> None:
        """Close the server. A second call does nothing."""
        self.ready = False
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"process": self._name, "status": "alive"})

    async def _ready(self, _: web.Request) -> web.Response:
        body = {"process": self._name, "ready": self.ready}
        return web.json_response(body, status=200 if self.ready else 503)

    async def _render(self, _: web.Request) -> web.Response:
        text = self._metrics() if self._metrics else ""
        return web.Response(text=text, headers={"Content-Type": PROMETHEUS_TEXT})
