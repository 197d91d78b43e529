"""Ports for servers that cannot choose one themselves."""

from __future__ import annotations

import random
import socket

# Below what the kernel gives to outgoing connections: none of those can take the port before the server does.
_FIRST, _LAST = 12_000, 32_000
_draw = random.SystemRandom()


def free_ports(count: int) -> range:
    """Give consecutive loopback ports that nobody listens on."""
    while True:
        first = _draw.randrange(_FIRST, _LAST - count)
        ports = range(first, first + count)
        if all(_is_free(port) for port in ports):
            return ports


def free_port() -> int:
    """Give a loopback port that nobody listens on."""
    return free_ports(1)[0]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
