"""Serves one endpoint for all processes of a machine: health, readiness and metrics of each, and of all together.

It requests them from each process when it gets a request. It does not poll in between.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final as Const

import aiohttp
from aiohttp import web

from kaption.service.health import PROMETHEUS_TEXT

_TIMEOUT: Const = aiohttp.ClientTimeout(total=3)
_SUFFIXES: Const = ("_bucket", "_count", "_sum", "_total", "_created")


@dataclass(frozen=True, slots=True)
class Status:
    """A process's state from its supervisor. ``url`` is its own endpoint, None if it has none (broker, store)."""

    running: bool
    ready: bool
    restarts: int
    url: str | None


def merge(texts: Mapping[str, str]) -> str:
    """Merge several processes' metrics in Prometheus' text format. Each sample gets ``process="<name>"``.

    Samples of one metric are grouped under one HELP and TYPE, as the format requires.
    """
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for name, text in texts.items():
        for line in text.splitlines():
            if line.startswith("#"):
                _, _, family, *_ = line.split(" ", 3)
                head = heads.setdefault(family, [])
                if not any(known.split(" ", 2)[1] == line.split(" ", 2)[1] for known in head):
                    head.append(line)
            elif line:
                samples.setdefault(_family(line, heads), []).append(_labelled(line, name))
    lines = [line for family in (heads | samples) for line in (*heads.get(family, ()), *samples.get(family, ()))]
    return "\n".join(lines) + "\n" if lines else ""


def _family(line: str, heads: Mapping[str, object]) -> str:
    name = line.partition("{")[0].partition(" ")[0]
    if name in heads:
        return name
    return next((name.removesuffix(s) for s in _SUFFIXES if name.endswith(s) and name.removesuffix(s) in heads), name)


def _labelled(line: str, process: str) -> str:
    name, brace, rest = line.partition("{")
    if brace:
        return line if rest.startswith('process="') else f'{name}{{process="{process}",{rest}'
    name, _, value = line.partition(" ")
    return f'{name}{{process="{process}"}} {value}'


class Aggregate:
    """Serves ``/health`` and ``/ready`` (200 or 503, JSON for each process), ``/metrics`` and ``/metrics/<process>``.

    ``statuses`` gives the processes' current states, ``own`` the supervisor's own metrics.
    """

    def __init__(self, statuses: Callable[[], Mapping[str, Status]], own: Callable[[], str]) -> None:
        self.ready = False
        self._statuses = statuses
        self._own = own
        self._runner: web.AppRunner | None = None
        self._http: aiohttp.ClientSession | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port. Raises ``OSError`` if it is in use."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/ready", self._ready),
                web.get("/metrics", self._metrics),
                web.get("/metrics/{process}", self._metrics_of),
            ]
        )
        self._http = aiohttp.ClientSession(timeout=_TIMEOUT)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Close the endpoint. A second call does nothing."""
        runner, self._runner = self._runner, None
        http, self._http = self._http, None
        if runner is not None:
            await runner.cleanup()
        if http is not None:
            await http.close()

    async def _health(self, _: web.Request) -> web.Response:
        processes = {
            name: {"running": status.running, "ready": status.ready, "restarts": status.restarts, "url": status.url}
            for name, status in self._statuses().items()
        }
        return web.json_response({"status": "alive", "processes": processes})

    async def _ready(self, _: web.Request) -> web.Response:
        statuses = self._statuses()
        asked = await asyncio.gather(*(self._is_ready(status) for status in statuses.values()))
        processes = dict(zip(statuses, asked, strict=True))
        ready = self.ready and all(asked)
        return web.json_response({"ready": ready, "processes": processes}, status=200 if ready else 503)

    async def _is_ready(self, status: Status) -> bool:
        if not status.running or status.url is None:
            return status.running and status.ready
        answer = await self._get(f"{status.url}/ready")
        return answer is not None and answer[0] == 200

    async def _metrics(self, _: web.Request) -> web.Response:
        urls = {name: status.url for name, status in self._statuses().items() if status.url is not None}
        answers = await asyncio.gather(*(self._get(f"{url}/metrics") for url in urls.values()))
        texts = {name: answer[1] for name, answer in zip(urls, answers, strict=True) if answer is not None}
        return _text(merge({"up": self._own()} | texts))

    async def _metrics_of(self, request: web.Request) -> web.Response:
        status = self._statuses().get(request.match_info["process"])
        if status is None or status.url is None:
            raise web.HTTPNotFound(text="no such process, or it has no metrics\n")
        answer = await self._get(f"{status.url}/metrics")
        if answer is None:
            raise web.HTTPBadGateway(text="the process does not answer\n")
        return _text(answer[1])

    async def _get(self, url: str) -> tuple[int, str] | None:
        """The answer's status and body. None if nothing answers."""
        if self._http is None:
            return None
        try:
            async with self._http.get(url) as response:
                return response.status, await response.text()
        except (aiohttp.ClientError, TimeoutError):
            return None


def _text(body: str) -> web.Response:
    return web.Response(text=body, headers={"Content-Type": PROMETHEUS_TEXT})


async def answers_ready(url: str) -> bool:
    """Whether ``/ready`` of a process answers 200 now."""
    try:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as http, http.get(f"{url}/ready") as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False
