"""What code that took over a decoding child can do: real children, forked and confined as ever, that run ``support/hostile.py``."""

import json
import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from kaption.adapters.media.files import Decoding, MediaDecoder
from kaption.adapters.processes import confinement
from kaption.adapters.settings import Settings
from kaption_schemas.errors import RefusedError
from kaption_schemas.reasons import Reason
from tests.support import hostile
from tests.support.media import encode, tone

PROGRAM = str(Path(hostile.__file__))


def decode(*program: str, **settings: int) -> bytes:
    with (
        closing(MediaDecoder(Settings.model_validate(settings), program)) as decoder,
        tempfile.TemporaryFile() as file,
        decoder.decode(cast("BinaryIO", file), mix=True) as decoding,
    ):
        pcm = bytearray()
        while block := decoding.read(10_000):
            pcm += block
        decoding.finish()
        return bytes(pcm)


def test_this_machine_filters_system_calls() -> None:
    """Else the next test would show nothing."""
    assert confinement.filters()


def test_a_child_that_was_taken_over_reaches_nothing(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("another tenant's")
    with socket.create_server(("127.0.0.1", 0)) as server:
        said = json.loads(decode(PROGRAM, "try", str(secret), str(server.getsockname()[1])))
    left = {"call another table": "ENOSYS"} if platform.machine() == "aarch64" else {}
    wanted = dict.fromkeys(hostile.attempts("", 0), "EPERM") | {"start a thread": "can't start new thread"} | left
    assert said == wanted
    assert secret.exists()


def test_what_a_child_gives_up() -> None:
    """Each of them would hold alone, where another does not: a kernel without filters, a service that is no root."""
    script = """
import os, sys
from kaption.adapters.processes.confinement import confine
confined, says = os.pipe()
parent, child = os.getpid(), os.fork()
if child == 0:
    confine(memory_mb=512, cpu_seconds=7, parent=parent)
    os.write(says, b"1")
    os.read(0, 1)
    os._exit(0)
os.read(confined, 1)
print(open(f"/proc/{child}/status").read(), open(f"/proc/{child}/limits").read(), "Session:", os.getsid(child) - child, "\\nend", flush=True)
sys.stdin.read()
os._exit(0)
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe, text=True) as parent:
        assert parent.stdout is not None
        said = ""
        while not said.endswith("end\n"):
            said += parent.stdout.readline() or pytest.fail(said)
        (child,) = map(int, Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split())
        parent.kill()
        _wait(lambda: not Path(f"/proc/{child}").exists() or _state(child) == "Z")
    nobody = [r"Uid:(\s65534){4}\n", r"Gid:(\s65534){4}\n", r"Groups:\s*\n"] if os.geteuid() == 0 else []
    for given_up in (
        r"NoNewPrivs:\s1\n",
        r"Seccomp:\s2\n",
        r"CapEff:\s0+\n",
        r"Max processes\s+0\s+0",
        r"Max file size\s+0\s+0",
        r"Max core file size\s+0\s+0",
        r"Max open files\s+16\s+16",
        r"Max cpu time\s+7\s+7",
        rf"Max address space\s+{512 << 20}\s+{512 << 20}",
        r"Session: 0 \n",
        *nobody,
    ):
        assert re.search(given_up, said), (given_up, said)


def test_no_process_of_the_same_user_reads_what_is_hidden() -> None:
    hidden = "from kaption.adapters.processes.confinement import hide; hide(); "
    for prefix, fate in ((hidden, "PermissionError"), ("", "done")):
        script = f"{prefix}import os, sys; {_AS_ANOTHER}; print(flush=True); sys.stdin.read()"
        pipe = subprocess.PIPE
        with subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe, text=True) as victim:
            assert victim.stdout is not None
            victim.stdout.readline()
            reads = f"""
import os
{_AS_ANOTHER}
try: open("/proc/{victim.pid}/environ").read()
except OSError as error: print(type(error).__name__)
else: print("done")
"""
            said = subprocess.run([sys.executable, "-c", reads], capture_output=True, text=True, check=True)
            assert said.stdout.strip() == fate
            victim.kill()


#: Root reads everything, so both are another user; that alone would hide it, hence the second half.
_AS_ANOTHER = (
    "hidden = __import__('ctypes').CDLL(None).prctl(3); "
    "os.geteuid() or (os.setresgid(65534, 65534, 65534), os.setresuid(65534, 65534, 65534), "
    "__import__('ctypes').CDLL(None).prctl(4, hidden))"
)


@pytest.mark.parametrize("module", ["kaption_streams.__main__", "kaption_gpu.__main__", "kaption.cli.up"])
def test_a_process_with_secrets_hides_them(module: str) -> None:
    script = f"""
import contextlib, ctypes, sys
from {module} import {"command as " if module.endswith("up") else ""}main
sys.argv = ["", "live"] if {module!r} == "kaption_streams.__main__" else [""]
with contextlib.suppress(Exception, SystemExit):
    main()
print("dumpable", ctypes.CDLL(None).prctl(3))
"""
    argv, wrong = [sys.executable, "-c", script], {"KAPTION_PARTITIONS": "it ends here"}
    said = subprocess.run(argv, env=os.environ | wrong, capture_output=True, text=True, check=False)
    assert "dumpable 0" in said.stdout, said.stderr


GOOD = '{"rate": 8000, "channels": 1}'


@pytest.mark.parametrize(
    ("first", "count", "last", "status"),
    [
        ('{"rate": 1, "channels": 1}', 2, '{"samples": 1}', 0),
        ('{"rate": 4000000000, "channels": 1}', 2, '{"samples": 1}', 0),
        ('{"rate": 8000, "channels": 3}', 6, '{"samples": 1}', 0),  # two at most are mixed
        ('{"rate": 8000, "channels": 0}', 2, '{"samples": 1}', 0),
        ('{"rate": "8000", "channels": true}', 2, '{"samples": 1}', 0),
        ('{"channels": 1}', 2, '{"samples": 1}', 0),
        ("[8000, 1]", 2, '{"samples": 1}', 0),
        ("{" * 4000, 2, '{"samples": 1}', 0),
        ("\xff\xfe", 2, "", 0),
        (GOOD, 2, '{"samples": 1000000}', 0),
        (GOOD, 2, '{"samples": -1}', 0),
        (GOOD, 2, "{}", 0),
        (GOOD, 2, '{"reason": "no such reason"}', 0),
        (GOOD, 3, '{"samples": 1}', 0),
        (GOOD, 2, "", 0),
        (GOOD, 2, "", 2),  # was once the status of a child without limits, which ended the agent
    ],
)
def test_what_no_decoder_says_refuses_its_file(first: str, count: int, last: str, status: int) -> None:
    with pytest.raises(RefusedError) as caught:
        decode(PROGRAM, "say", first, str(count), last, str(status))
    assert caught.value.reason is Reason.DECODE_LIMIT


def test_a_child_that_never_stops_fills_no_bucket() -> None:
    with pytest.raises(RefusedError) as caught:
        decode(PROGRAM, "say", GOOD, str(1 << 25), "", "0", object_max_seconds=60)
    assert caught.value.reason is Reason.TOO_LONG


def test_a_crash_leaves_others_files_alone() -> None:
    """What forked it makes no more children, and ends with those that it has."""
    with (
        closing(MediaDecoder(Settings())) as decoder,
        tempfile.TemporaryFile() as long,
        tempfile.TemporaryFile() as short,
    ):
        for file in (long, short):
            file.write(encode(tone(120), 16_000))
        with decoder.decode(cast("BinaryIO", long), mix=True) as innocent:
            before = decoder.pid
            assert before is not None
            with decoder.decode(cast("BinaryIO", short), mix=True):
                children = Path(f"/proc/{before}/task/{before}/children").read_text().split()
                os.kill(int(children[1]), 6)
                _wait(lambda: not Path(f"/proc/{children[1]}").exists())
            short.seek(0)
            with decoder.decode(cast("BinaryIO", short), mix=True) as again:
                assert decoder.pid != before
                assert _samples(again) == _samples(innocent) == 120 * 16_000
        _wait(lambda: _state(before) == "Z")
        short.seek(0)
        with decoder.decode(cast("BinaryIO", short), mix=True):
            pass


def _samples(decoding: Decoding) -> int:
    while decoding.read(50_000):
        pass
    return decoding.finish()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)
