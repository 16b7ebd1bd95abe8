"""Ports for processes that are about to be started."""

import socket
from pathlib import Path

from kaption.adapters.processes.tcp_ports import free_ports


def test_they_differ_and_no_outgoing_connection_gets_one() -> None:
    ports = free_ports(50)
    assert len(set(ports)) == 50
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert first <= 20_000 or all(20_000 <= port < first for port in ports)
    for port in ports:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
