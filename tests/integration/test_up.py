"""``kaption up`` as a user runs it, and each way in which it can't: one line that says what and what to do."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kaption.adapters.processes.tcp_ports import free_port
from kaption.cli.main import unsupported
from kaption.testing.brokers import ApacheNode
from kaption.testing.processes import Child
from kaption.testing.store import EmbeddedStore
from kaption.testing.up import group_of, kaption, running_up


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


def told_to_others(children: dict[int, str], name: bytes) -> list[bool]:
    """Of each program that is not ours, whether a variable of the environment is in its own."""
    others = [pid for pid, args in children.items() if "noida-db" in args or "weed" in args]
    return [name in Path(f"/proc/{pid}/environ").read_bytes() for pid in others]


def open_to_others(data: Path) -> list[Path]:
    """What of a pipeline's files another user may read: not what lies in a folder that is closed (the store writes some files with a mode of its own)."""
    written = [path for path in data.rglob("*") if path.name not in {"encoders", "up.log"}]  # the tests' own
    assert {"kafka", "s3", "live.log"} <= {path.name for path in written}
    closed = [path for path in written if path.is_dir() and not path.stat().st_mode & 0o077]
    return [
        path
        for path in written
        if path.exists() and path.stat().st_mode & 0o077 and not any(folder in path.parents for folder in closed)
    ]


async def test_up_runs_restarts_and_leaves_nothing(tmp_path: Path) -> None:
    arguments = ("--kafka-port", "0", "--http-port", "0")
    async with running_up(tmp_path, arguments, {"ANOTHER_TOOLS_TOKEN": "its own"}) as up:
        output = up.child.output(100_000)
        assert output.count("for trying out") == 1
        assert (await get(f"{up.http}/health"))[0] == 200
        status, text = await get(f"{up.http}/ready")
        assert status == 200
        assert json.loads(text)["processes"].keys() == {"kafka", "s3", "live", "files", "pool-1"}
        assert 'asr_model_info{process="pool-1"' in (await get(f"{up.http}/metrics"))[1]
        assert 'kaption_backend_info{process="pool-1",backend="' in (await get(f"{up.http}/metrics"))[1]
        assert "asr_model_info" in (await get(f"{up.http}/metrics/pool-1"))[1]
        assert (await get(f"{up.http}/metrics/nobody"))[0] == 404

        children = group_of(up.child.pid)
        assert len(children) == 5
        assert told_to_others(children, b"ANOTHER_TOOLS_TOKEN") == [False, False]
        assert not open_to_others(tmp_path)

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


def small_disk(folder: Path, mib: int) -> list[str]:
    """What to put before a command so that ``folder`` is a disk of its own for it, made without root."""
    unshare = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody but root make a disk (unshare --map-root-user --mount)")
    return [*unshare, "sh", "-c", f'mount -t tmpfs -o size={mib}m tmpfs "$0" && exec "$@"', str(folder)]


def test_a_disk_with_too_little_room_is_named(tmp_path: Path) -> None:
    before = small_disk(tmp_path, 100)
    done = subprocess.run(
        [*before, *kaption("up", "--data", str(tmp_path / "data"))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 73
    assert f"the disk of {tmp_path}/data has " in done.stderr
    assert "MiB left and 512 are needed: free some room, or choose another folder with --data" in done.stderr


def fill(file: Path) -> None:
    with suppress(OSError), file.open("wb", buffering=0) as out:
        while out.write(bytes(1 << 20)):
            pass


async def test_a_disk_that_runs_full_is_said_and_what_stopped_goes_on(tmp_path: Path) -> None:
    (disk := tmp_path / "disk").mkdir()
    before = small_disk(disk, 600)
    command = [*before, *kaption("up", "--data", str(disk / "data"), "--kafka-port", "0", "--http-port", "0")]
    with Child(command, tmp_path / "up.log").during(60) as child:
        await said(child, "ready kafka=", 120)
        # The disk is seen through its process alone.
        ballast = Path(f"/proc/{child.pid}/root{disk}/ballast")
        await asyncio.to_thread(fill, ballast)
        # How much is left is what it was when `kaption up` looked, maybe in the middle of it.
        await said(child, " MiB left; nothing is accepted once it is full: free some room", 30)
        assert f"the disk of {disk}/data has " in child.output(100_000)
        await asyncio.to_thread(ballast.unlink)
        await said(child, f"the disk of {disk}/data has room again", 30)
        http = re.search(r"http=(\S+)", child.output(100_000))
        assert http is not None
        await until_ready(http[1], state=True, seconds=60)


async def said(child: Child, line: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while line not in child.output(100_000):
        assert child.running, child.output()
        assert time.monotonic() < end, child.output()
        await asyncio.sleep(0.1)


async def test_a_broker_and_a_store_of_ones_own_that_go_away_are_said_and_come_back(
    tmp_path: Path, apache_home: Path
) -> None:
    for name in ("kafka", "s3", "up"):
        (tmp_path / name).mkdir()
    broker, store = ApacheNode(apache_home, tmp_path / "kafka"), EmbeddedStore(tmp_path / "s3")
    try:
        await asyncio.gather(broker.start(), store.start())
        arguments = ("--kafka", broker.bootstrap, "--s3", store.fields["s3"], "--http-port", "0")
        async with running_up(tmp_path / "up", arguments) as up:
            store.stop()
            broker.kill()
            waits = "does not answer; what was accepted waits for it: start it again"
            await said(up.child, f"the object store at {up.s3} {waits}", 40)
            await said(up.child, f"the broker at {up.kafka} {waits}", 40)
            processes = (await ready(up.http))["processes"]
            assert (processes["kafka"], processes["s3"]) == (False, False)
            await asyncio.gather(broker.start(), store.start())
            await said(up.child, f"the object store at {up.s3} answers again", 40)
            await said(up.child, f"the broker at {up.kafka} answers again", 40)
            await until_ready(up.http, state=True, seconds=60)
    finally:
        broker.stop()
        store.stop()


def test_a_store_that_refuses_the_keys_is_named(tmp_path: Path, store: EmbeddedStore) -> None:
    wrong = {"KAPTION_S3_SECRET_KEY": "marzipan"}
    done = run("up", "--data", str(tmp_path), "--kafka-port", "0", "--s3", store.fields["s3"], env=wrong)
    assert done.returncode == 77
    assert f"the object store at {store.fields['s3']} answered AccessDenied: check KAPTION_S3_ACCESS_KEY" in done.stderr
    asked = run("doctor", "--json", "--s3", store.fields["s3"], env=wrong)
    checks = {check["name"]: check for check in json.loads(asked.stdout)["checks"]}
    assert checks["store"]["ok"] is False
    assert "KAPTION_S3_SECRET_KEY" in checks["store"]["remedy"]
    assert "marzipan" not in done.stderr + asked.stdout + asked.stderr


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
    assert "IncompatibleError" in done.stderr
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
