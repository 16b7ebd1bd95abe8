import os
import signal
import subprocess
import sys
import time

from kaption.adapters.members import client_id, is_dead


def test_this_process_is_alive_and_strangers_are_not_judged() -> None:
    own = client_id("pool")
    assert own.endswith(f"@{os.getpid()}")
    assert not is_dead(own)
    assert not is_dead("aiokafka-0.14.0")
    assert not is_dead("kaption-pool@elsewhere@1@999999")


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
