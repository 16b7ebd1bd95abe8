"""``kaption up`` as a user runs it, and each way in which it can't: one line that says what and what to do."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kaption.adapters.embedded_kafka import free_port
from kaption.cli.main import unsupported
from tests.support.up import group_of, kaption, start_up


def run(*arguments: str, env: dict[str, str] | None = None, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        kaption(*arguments), capture_output=True, text=True, timeout=seconds, env=os.environ | (env or {}), check=False
    )


def left(pids: dict[int, str]) -> list[str]:
    return [args for pid, args in pids.items() if Path(f"/proc/{pid}").exists()]


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        return response.status, await response.text()


async def ready(url: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((await get(f"{url}/ready"))[1])
    return body


async def until_ready(url: str, *, state: bool, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (await ready(url))["ready"] is not state:
        assert time.monotonic() < end, await ready(url)
        await asyncio.sleep(0.2)


async def test_up_runs_restarts_and_leaves_nothing(tmp_path: Path) -> None:
    up = await start_up(tmp_path, ("--kafka-port", "0", "--http-port", "0"))
    output = up.child.output(100_000)
    assert output.count("for trying out") == 1
    assert (await get(f"{up.http}/health"))[0] == 200
    status, text = await get(f"{up.http}/ready")
    assert status == 200
    assert json.loads(text)["processes"].keys() == {"kafka", "s3", "live", "files", "pool-1"}
    assert 'asr_model_info{process="pool-1"' in (await get(f"{up.http}/metrics"))[1]
    assert "asr_model_info" in (await get(f"{up.http}/metrics/pool-1"))[1]
    assert (await get(f"{up.http}/metrics/nobody"))[0] == 404

    children = group_of(up.child.pid)
    assert len(children) == 5
    agent = next(pid for pid, args in children.items() if args.endswith("kaption_streams live"))
    os.kill(agent, signal.SIGKILL)
    await until_ready(up.http, state=False, seconds=10)
    await until_ready(up.http, state=True, seconds=60)
    assert "live was ended by SIGKILL; starting it again" in up.child.output(100_000)
    assert 'kaption_restarts_total{process="live"} 1.0' in (await get(f"{up.http}/metrics"))[1]

    second = await asyncio.to_thread(run, "up", "--data", str(tmp_path), "--kafka-port", "0")
    assert second.returncode == 75
    assert "another `kaption up` works in" in second.stderr

    children |= group_of(up.child.pid)
    assert await asyncio.to_thread(up.child.stop, 60) == 0
    assert not left(children)
    assert "was killed" not in up.child.output(100_000)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens at and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize("option", ["--kafka-port", "--http-port"])
def test_a_port_in_use_is_named_with_its_option(tmp_path: Path, taken: int, option: str) -> None:
    done = run("up", "--data", str(tmp_path), option, str(taken))
    assert done.returncode == 75
    assert f"port {taken} on 127.0.0.1 is in use: " in done.stderr
    assert option in done.stderr
    assert done.stdout == ""


def test_a_broker_that_is_away_is_named(tmp_path: Path) -> None:
    away = f"127.0.0.1:{free_port()}"
    done = run("up", "--data", str(tmp_path), "--kafka", away)
    assert done.returncode == 69
    assert f"no Kafka broker answers at {away}: start it" in done.stderr


def test_a_store_that_is_away_is_named(tmp_path: Path) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    done = run("up", "--data", str(tmp_path), "--kafka-port", "0", "--s3", away)
    assert done.returncode == 69
    assert f"at {away}" in done.stderr


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("up", "--data", str(tmp_path / "file" / "data"))
    assert done.returncode == 73
    assert "--data" in done.stderr


def test_apache_without_its_home_says_so(tmp_path: Path) -> None:
    done = run(
        "up",
        "--data",
        str(tmp_path),
        "--kafka",
        "apache",
        env={"KAFKA_HOME": str(tmp_path), "PATH": os.environ["PATH"]},
    )
    assert done.returncode == 78
    assert "Kafka 4" in done.stderr or "Java" in done.stderr


def test_a_model_that_is_not_there_ends_the_start_with_its_reason(tmp_path: Path) -> None:
    done = run("up", "--data", str(tmp_path), "--kafka-port", "0", "--http-port", "0", "--model", "huge", seconds=120)
    assert done.returncode == 70
    assert "pool-1 ended with status 1 3 times at its start" in done.stderr
    assert "WeightsError" in done.stderr
    assert done.stdout == ""


def test_a_wrong_setting_is_named_and_not_shown() -> None:
    done = run("up", env={"KAPTION_PARTITIONS": "marzipan"})
    assert done.returncode == 78
    assert "KAPTION_PARTITIONS" in done.stderr
    assert "marzipan" not in done.stderr


@pytest.mark.parametrize("command", ["up", "topics", "dlq", "doctor", "version"])
def test_each_command_has_help(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: kaption {command}")


@pytest.mark.parametrize(
    ("system", "machine", "version"),
    [
        ("Darwin", "arm64", (3, 12)),
        ("Linux", "aarch64", (3, 12)),
        ("Linux", "x86_64", (3, 10)),
        ("Linux", "x86_64", (3, 14)),
    ],
)
def test_another_platform_is_refused_by_name(system: str, machine: str, version: tuple[int, int]) -> None:
    refusal = unsupported(system, machine, version)
    assert refusal is not None
    assert f"{system} {machine}, Python 3.{version[1]}" in refusal
    assert unsupported("Linux", "x86_64", (3, 11)) is None


def test_help_comes_at_once() -> None:
    times = os.times()
    assert run("--help").returncode == 0
    spent = os.times().children_user + os.times().children_system - times.children_user - times.children_system
    assert spent < 0.3
