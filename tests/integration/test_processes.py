"""Tests the supervisor: it restarts with backoff, abandons a process that never works, stops in order, and leaves nothing."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kaption.adapters.processes.supervisor import Backoff, ChildSpec, Supervisor, rotate
from kaption.adapters.processes.tcp_ports import free_port
from kaption.service.aggregate import answers_ready, merge
from kaption_schemas.errors import ProcessError

CHILD = Path(__file__).parents[1] / "support" / "child.py"
QUICK = Backoff(first=0.05, most=0.2, steady=60)


def spec(folder: Path, name: str, *mode: str, drain: float = 5.0) -> ChildSpec:
    port = free_port()

    async def ready() -> bool:
        return await answers_ready(f"http://127.0.0.1:{port}")

    argv = (sys.executable, str(CHILD), str(port), *mode)
    return ChildSpec(name, argv, dict(os.environ), folder / f"{name}.log", ready, drain_seconds=drain)


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def until(true: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.05)


@pytest.fixture
def said() -> list[str]:
    return []


async def test_a_child_that_dies_is_started_again_and_said_so(tmp_path: Path, said: list[str]) -> None:
    restarted: list[str] = []
    supervisor = Supervisor(said.append, backoff=QUICK, restarted=restarted.append)
    supervisor.start(spec(tmp_path, "one", "well"))
    await supervisor.wait_ready()
    (child,) = supervisor.children
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: "one is ready again" in said)
    assert child.pid not in (None, first)
    assert said[0].startswith("one was ended by SIGKILL; starting it again at once")
    assert restarted == ["one"]
    second = child.pid
    assert second is not None
    os.kill(second, signal.SIGKILL)
    await until(lambda: said.count("one is ready again") == 2)
    assert said[2].startswith("one was ended by SIGKILL; starting it again in 0.05 s")
    third = child.pid
    await supervisor.stop()
    assert not alive(third or 0)


async def test_a_first_death_at_the_start_is_forgiven(tmp_path: Path, said: list[str]) -> None:
    supervisor = Supervisor(said.append, backoff=QUICK)
    supervisor.start(spec(tmp_path, "one", "once", str(tmp_path / "seen")))
    await supervisor.wait_ready()
    await supervisor.stop()
    assert said[0].startswith("one ended with status 3")


async def test_what_never_works_is_given_up_with_its_last_words(tmp_path: Path, said: list[str]) -> None:
    supervisor = Supervisor(said.append, backoff=QUICK)
    supervisor.start(spec(tmp_path, "good", "well"))
    supervisor.start(spec(tmp_path, "bad", "die"))
    with pytest.raises(
        ProcessError,
        match=r"bad ended with status 3 3 times .*start_failed \(IncompatibleError: no model called huge\)",
    ):
        await supervisor.wait_ready()
    pids = [child.pid for child in supervisor.children]
    await supervisor.stop()
    assert not any(alive(pid) for pid in pids if pid)


async def test_a_child_that_does_not_stop_is_killed_with_all_it_started(tmp_path: Path, said: list[str]) -> None:
    supervisor = Supervisor(said.append, backoff=QUICK)
    supervisor.start(spec(tmp_path, "stubborn", "stubborn", drain=0.5))
    supervisor.start(spec(tmp_path, "parent", "parent", str(tmp_path / "pid")))
    await supervisor.wait_ready()
    grandchild = int((tmp_path / "pid").read_text())
    pids = [child.pid for child in supervisor.children if child.pid]
    await supervisor.stop(("stubborn",))
    assert said == ["stubborn did not stop within 0.5 s and was killed"]
    await until(lambda: not any(alive(pid) for pid in (*pids, grandchild)))


async def test_nothing_survives_a_killed_supervisor(tmp_path: Path) -> None:
    program = tmp_path / "supervise.py"
    program.write_text(
        "import asyncio, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\n"
        "import test_processes as t\n"
        "async def main() -> None:\n"
        "    supervisor = t.Supervisor(print)\n"
        f"    supervisor.start(t.spec(Path({str(tmp_path)!r}), 'one', 'stubborn'))\n"
        "    await supervisor.wait_ready()\n"
        "    print(supervisor.children[0].pid, flush=True)\n"
        "    await supervisor.failed()\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
    assert parent.stdout is not None
    with parent, parent.stdout:
        child = int(await asyncio.to_thread(parent.stdout.readline))
        assert alive(child)
        parent.kill()
        parent.wait()
    await until(lambda: not alive(child))


async def test_what_runs_and_is_not_ready_is_started_again(tmp_path: Path, said: list[str]) -> None:
    """Only once its dependencies are there: before, no process could be ready."""
    mood, there = tmp_path / "mood", asyncio.Event()

    async def needs() -> bool:
        return there.is_set()

    supervisor = Supervisor(said.append, backoff=QUICK, watch_seconds=0.1)
    supervisor.start(replace(spec(tmp_path, "one", "sulk", str(mood)), hang_seconds=1.0, needs=needs))
    await supervisor.wait_ready()
    (child,) = supervisor.children
    first = child.pid
    mood.touch()
    await asyncio.sleep(2)  # nothing is to come of it
    assert (child.pid, said) == (first, [])
    there.set()
    await until(lambda: bool(said))
    assert said[0] == "one runs and was not ready for 1 s; ending it"
    mood.unlink()
    await until(lambda: "one is ready again" in said)
    assert child.pid not in (None, first)
    await supervisor.stop()


async def test_a_program_that_is_not_there_says_so(tmp_path: Path, said: list[str]) -> None:
    async def never() -> bool:
        return False

    ready: Callable[[], Awaitable[bool]] = never
    supervisor = Supervisor(said.append, backoff=QUICK)
    supervisor.start(ChildSpec("none", (str(tmp_path / "no"),), {}, tmp_path / "none.log", ready))
    with pytest.raises(ProcessError, match=r"no can't be run: No such file"):
        await supervisor.wait_ready()
    await supervisor.stop()


def test_delays_double_up_to_a_bound() -> None:
    backoff = Backoff(first=0.5, most=30)
    assert [backoff.delay(n) for n in (0, 1, 2, 3, 7, 500)] == [0.0, 0.5, 1.0, 2.0, 30.0, 30.0]


def test_a_large_log_is_moved_aside_and_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 100)
        rotate(log, 100)
        assert log.stat().st_size == 100
        rotate(log, 99)
        writer.write(b"new")
    assert log.read_bytes() == b"new"
    assert (tmp_path / "a.log.1").read_bytes() == b"x" * 100


def test_metrics_of_several_processes_stand_under_one_head() -> None:
    text = (
        '# HELP a_total What.\n# TYPE a_total counter\na_total{x="1"} 2.0\n# HELP h H.\n# TYPE h histogram\nh_count 1\n'
    )
    assert merge({"p": text, "q": text}).splitlines() == [
        "# HELP a_total What.",
        "# TYPE a_total counter",
        'a_total{process="p",x="1"} 2.0',
        'a_total{process="q",x="1"} 2.0',
        "# HELP h H.",
        "# TYPE h histogram",
        'h_count{process="p"} 1',
        'h_count{process="q"} 1',
    ]
