import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from kaption.adapters.kafka.members import client_id, is_dead


def test_this_process_is_alive_and_strangers_are_not_judged() -> None:
    own = client_id("pool")
    assert own.endswith(f"@{os.getpid()}")
    assert not is_dead(own)
    assert not is_dead("aiokafka-0.14.0")
    assert not is_dead("kaption-pool@elsewhere@1@999999")


def test_a_machine_of_the_same_name_is_another_one() -> None:
    """In their first pid namespace all have the same number of it; what they do not share is when they were started."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    name, namespace, _ = client_id("pool").rsplit("@", 2)
    assert name.endswith(f"@{boot[:8]}")
    other = f"{name.rpartition('@')[0]}@00000000@{namespace}@999999"
    assert is_dead(f"{name}@{namespace}@999999999")
    assert not is_dead(other)


def test_an_ended_and_a_stopped_process_are_dead() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        name = client_id("pool").rpartition("@")[0] + f"@{child.pid}"
        assert not is_dead(name)
        child.send_signal(signal.SIGSTOP)
        for _ in range(100):
            if is_dead(name):
                break
            time.sleep(0.02)
        assert is_dead(name)
        child.kill()
    assert is_dead(name)
