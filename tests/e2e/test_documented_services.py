"""docs/running.md: the processes as they are started there make a pipeline, and end as it says."""

import asyncio
import os
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kaption.adapters.processes.tcp_ports import free_port
from kaption.adapters.settings import child_environment
from kaption.service.aggregate import answers_ready
from kaption.testing.brokers import ROOT, EmbeddedBroker
from kaption.testing.processes import Child
from kaption.testing.store import EmbeddedStore
from tests.conftest import MakeSettings

LINES = re.findall(r"^    (\S.*)$", (ROOT / "docs" / "running.md").read_text(), re.MULTILINE)
SERVICES = [line for line in LINES if line.startswith("python -m")]
SPEECH = ROOT / "demo" / "speech" / "harbour-1-joe.flac"
SECONDS = 120


@pytest.fixture
def environment(fresh_kafka: EmbeddedBroker, store: EmbeddedStore, make_settings: MakeSettings) -> dict[str, str]:
    """Return the environment that the page gives to each process, with this interpreter's programs first."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return child_environment(make_settings(fresh_kafka, **store.fields)) | {"PATH": path}


async def execute(command: list[str], environment: dict[str, str]) -> str:
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture
async def services(environment: dict[str, str], tmp_path: Path) -> AsyncIterator[list[Child]]:
    """The topics made, and every process of the page ready."""
    for line in LINES:
        if line not in SERVICES:
            await execute(shlex.split(line), environment)
    started: dict[str, Child] = {}
    try:
        for number, line in enumerate(SERVICES):
            port = free_port()
            argv = [sys.executable, *shlex.split(line)[1:]]
            child = Child(argv, tmp_path / f"{number}.log", environment | {"KAPTION_HTTP_PORT": str(port)})
            child.spawn()
            started[f"http://127.0.0.1:{port}"] = child
        async with asyncio.timeout(SECONDS):
            for url, child in started.items():
                while not await answers_ready(url):
                    assert child.running, child.output()
                    await asyncio.sleep(0.1)
        yield list(started.values())
    finally:
        for child in started.values():
            child.kill()


async def test_each_process_by_itself_makes_the_pipeline(services: list[Child], environment: dict[str, str]) -> None:
    assert len(services) == 3
    for stream, way in (("call", "--live"), ("file", "--as-object")):
        await execute(["kaption", "publish", str(SPEECH), "--stream", stream, way, "--language", "en"], environment)
        said = await execute(
            ["kaption", "follow", stream, "--txt", "--from-beginning", "--until-completed"], environment
        )
        assert "harbor" in said.lower() or "harbour" in said.lower()
    assert [await asyncio.to_thread(child.stop, 30) for child in services] == [0, 0, 0]
