"""Finds free TCP ports for processes that are about to start."""

import random
import socket
from pathlib import Path
from typing import Final as Const

LOOPBACK: Const = "127.0.0.1"
#: Below these lie ports of well-known services.
_FIRST: Const = 20_000
_RANGE: Const = Path("/proc/sys/net/ipv4/ip_local_port_range")
_TRIES: Const = 100
_LOTS: Const = random.SystemRandom()


def free_port(host: str = LOOPBACK) -> int:
    """Return a TCP port that was free a moment ago; see ``free_ports``."""
    return free_ports(1, host)[0]


def free_ports(count: int, host: str = LOOPBACK) -> list[int]:
    """Return different ports that were free a moment ago.

    The kernel gives none of them to outgoing connections: before the process listens, which takes seconds, a client on the
    machine might get one.

    Raises:
        OSError: No port is free, or the address does not exist.
    """
    found: list[int] = []
    probes: list[socket.socket] = []
    try:
        while len(found) < count:
            probes.append(socket.socket())
            found.append(_bind(probes[-1], host))
    finally:
        for probe in probes:
            probe.close()
    return found


def _bind(probe: socket.socket, host: str) -> int:
    """Bind ``probe`` to a port that no outgoing connection gets, or to any if those are few or taken."""
    end = _outgoing()
    for _ in range(_TRIES if end > _FIRST else 0):
        try:
            probe.bind((host, port := _LOTS.randrange(_FIRST, end)))
        except OSError:
            continue
        return port
    probe.bind((host, 0))
    return int(probe.getsockname()[1])


def _outgoing() -> int:
    """Return the first port that the kernel gives to outgoing connections; 0 if unknown."""
    try:
        return int(_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0
