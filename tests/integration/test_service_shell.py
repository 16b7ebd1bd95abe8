"""What all service processes do alike: report their state, end on SIGTERM, and log why they did not start."""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kaption.adapters.processes.tcp_ports import free_port
from kaption.testing.pipeline import ready
from kaption.testing.processes import Child


def child(mode: str, folder: Path, **env: str) -> Child:
    argv = [sys.executable, "-m", "tests.support.shell_service", mode]
    return Child(argv, folder / "log", {"KAPTION_HTTP_PORT": str(free_port())} | env)


def said(one: Child) -> list[dict[str, Any]]:
    return [json.loads(line) for line in one.output().splitlines()]


async def get(one: Child, path: str) -> tuple[int, str]:
    url = f"http://127.0.0.1:{one.env['KAPTION_HTTP_PORT']}{path}"
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        return response.status, await response.text()


async def answers(one: Child) -> bool:
    try:
        return (await get(one, "/health"))[0] == 200
    except aiohttp.ClientError:
        return False


async def test_a_service_says_how_it_is_and_ends_well(tmp_path: Path) -> None:
    one = child("well", tmp_path)
    one.spawn()
    try:
        await ready(one)
        assert json.loads((await get(one, "/health"))[1]) == {"process": "nothing", "status": "alive"}
        assert await get(one, "/hello") == (200, "hello")
    finally:
        assert one.stop() == 0
    assert said(one) == []


async def test_one_that_still_starts_ends_at_once(tmp_path: Path) -> None:
    """Whatever swallows its cancellation: it has nothing to hand over yet."""
    one = child("starting", tmp_path)
    one.spawn()
    try:
        async with asyncio.timeout(30):
            while not await answers(one):
                await asyncio.sleep(0.1)
        assert (await get(one, "/ready"))[0] == 503
        begin = time.monotonic()
    finally:
        status = one.stop()
    assert status == 0
    assert time.monotonic() - begin < 5


def test_a_failure_is_logged_without_its_words_and_is_status_1(tmp_path: Path) -> None:
    one = child("fails", tmp_path)
    one.spawn()
    assert one.wait(30) == 1
    (line,) = said(one)
    assert (line["process"], line["level"], line["error"]["type"]) == ("nothing", "ERROR", "LookupError")
    assert "secret" not in one.output()


async def test_a_port_in_use_keeps_it_from_starting(tmp_path: Path) -> None:
    first = child("well", tmp_path)
    first.spawn()
    try:
        await ready(first)
        second = child("well", tmp_path / "second", KAPTION_HTTP_PORT=first.env["KAPTION_HTTP_PORT"])
        second.spawn()
        assert second.wait(30) == 1
        (line,) = said(second)
        assert "in use" in line["error"]
    finally:
        first.stop()


@pytest.mark.parametrize(
    ("module", "arguments"), [("kaption_streams", ["live", "--stage", "all"]), ("kaption_gpu", ["2"])]
)
def test_another_command_line_is_told_what_there_is(module: str, arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"usage: python -m {module}")


def test_the_stages_in_one_are_no_service_where_each_is_by_itself(tmp_path: Path) -> None:
    one = Child([sys.executable, "-m", "kaption_streams", "live"], tmp_path / "log", {"KAPTION_STAGES": "staged"})
    one.spawn()
    assert one.wait(30) == 78
    assert "start each stage by itself, with --stage" in said(one)[-1]["error"]
