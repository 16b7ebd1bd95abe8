"""How a profile's samples become shares of a core."""

import os
import subprocess
import sys

import pytest

from bench.processes import ended_seconds
from bench.profile import Bar, attribute, draw, read_samples, subject

RAW = """\
thread (11): MainThread;<module> (kaption_gpu/__main__.py);run (asyncio/runners.py);feed (kaption/domain/run/session.py:59) 30
thread (11): MainThread;<module> (kaption_gpu/__main__.py);_select (asyncio/selectors.py:9);send (aiokafka/conn.py:4) 10
thread (11): MainThread;<module> (kaption_gpu/__main__.py);run_forever (asyncio/base_events.py:3);EpollSelector.select (selectors.py:468) 900
thread (12): executor;work (kaption_gpu/engine/executor.py);CTranslate2Runtime.generate (kaption_gpu/engine/backends/faster_whisper.py:59) 60
thread (12): executor;work (kaption_gpu/engine/executor.py);PairedRuntime.encode (kaption_gpu/engine/backends/pairs.py:50) 20
"""


@pytest.mark.parametrize(
    ("frames", "what"),
    [
        (["a (kaption/domain/pool/plan.py:3)", "choice (random.py:4)"], "kaption/domain/pool/plan"),
        (["a (kaption/client/publisher.py)", "send (aiokafka/conn.py:3)", "write (asyncio/streams.py:7)"], "aiokafka"),
        (["start (mode/threads.py:1)"], "faust"),
        (["run (asyncio/runners.py:1)"], "asyncio"),
    ],
)
def test_a_stack_is_about_the_innermost_package(frames: list[str], what: str) -> None:
    assert subject(frames) == what


def test_threads_without_python_get_what_executors_wait_for() -> None:
    parts = attribute({11: 0.4, 12: 0.0, 13: 0.8}, read_samples(RAW.splitlines()))
    assert parts["kaption/domain/run/session"] == pytest.approx(0.3)
    assert parts["aiokafka"] == pytest.approx(0.1)
    assert parts["generate"] == pytest.approx(0.6)
    assert parts["encode"] == pytest.approx(0.2)


def test_an_event_loop_that_only_waited_gets_none_of_the_runtimes_time() -> None:
    waiting = "thread (14): loop;run (asyncio/runners.py);EpollSelector.select (selectors.py:468) 9"
    parts = attribute({12: 0.4, 14: 0.1}, read_samples([*RAW.splitlines(), waiting]))
    assert parts["other"] == pytest.approx(0.1)
    assert parts["generate"] + parts["encode"] == pytest.approx(0.4)


def test_the_picture_names_every_part() -> None:
    picture = draw([Bar("pool", {"generate": 0.6, "a<b": 0.2}), Bar("java", {"all of it": 0.1})], "load")
    assert picture.startswith("<svg")
    assert all(text in picture for text in ("pool 0.80", "0.600 generate", "0.200 a&lt;b", "java 0.10", ">load<"))


def test_children_that_have_ended_are_counted() -> None:
    before = ended_seconds(os.getpid())
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"], check=True)
    assert ended_seconds(os.getpid()) - before >= 0.25
