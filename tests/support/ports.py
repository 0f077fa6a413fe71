"""Ports for processes that listen some seconds after the test has chosen one."""

from __future__ import annotations

import socket
from pathlib import Path
from random import SystemRandom

EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
LOWEST = 10_000


def free_port() -> str:
    """Gives a port of this machine that nobody listens at, and that no outgoing connection can be given meanwhile.

    A port that the kernel chooses (``bind`` to 0) is one that it may hand to any connection before the rank that is
    to listen there has imported torch. So this one lies below the kernel's own range, and is drawn by the system's
    generator: two test workers whose ``random`` was given one seed would draw the same.
    """
    highest = int(EPHEMERAL.read_text().split()[0])
    while True:
        port = SystemRandom().randrange(LOWEST, highest)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return str(port)
