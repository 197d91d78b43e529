"""A host of its own for clients, on this machine: a network namespace that can vanish without a word."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import socket
import subprocess
from pathlib import Path
from threading import Thread
from typing import Self

CLONE_NEWNET = 0x40000000
COMMAND_SECONDS = 10


class OtherHost:
    """Joined to this one by a cable (a veth pair). A context manager; raises OSError where the right is missing."""

    def __init__(self) -> None:
        mark = secrets.token_hex(3)
        self._name, self._here, self._there = f"gapless-{mark}", f"gl{mark}a", f"gl{mark}b"
        # Of the range that is set aside for tests of networks (RFC 2544), a /30 of our own.
        block = secrets.randbelow(2**14) * 4
        self._subnet = f"198.18.{block >> 8}.{block & 255}"
        self.address_of_this_host = f"198.18.{block >> 8}.{(block & 255) + 1}"

    def __enter__(self) -> Self:
        if os.geteuid() != 0 or shutil.which("ip") is None:
            raise PermissionError("a network namespace needs root, and the command ip")
        their_address = f"{self._subnet.rpartition('.')[0]}.{int(self._subnet.rpartition('.')[2]) + 2}"
        _ip("netns", "add", self._name)
        try:
            _ip("link", "add", self._here, "type", "veth", "peer", "name", self._there, "netns", self._name)
            _ip("addr", "add", f"{self.address_of_this_host}/30", "dev", self._here)
            _ip("link", "set", self._here, "up")
            _ip("-n", self._name, "addr", "add", f"{their_address}/30", "dev", self._there)
            self.appear()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        _ip("netns", "del", self._name)  # and the cable with it

    def vanish(self) -> None:
        """Pull the cable at their end: nothing arrives any more, no FIN and no RST leaves."""
        _ip("-n", self._name, "link", "set", self._there, "down")

    def appear(self) -> None:
        _ip("-n", self._name, "link", "set", self._there, "up")

    def new_socket(self) -> socket.socket:
        """A TCP socket of that host. It stays there, whoever uses it."""
        made: list[socket.socket | OSError] = []
        thread = Thread(target=self._make_socket, args=(made,))  # the namespace is the thread's, which ends with it
        thread.start()
        thread.join()
        if isinstance(made[0], OSError):
            raise made[0]
        return made[0]

    def _make_socket(self, made: list[socket.socket | OSError]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = os.open(Path("/var/run/netns") / self._name, os.O_RDONLY)
        try:
            if libc.setns(descriptor, CLONE_NEWNET) != 0:
                made.append(OSError(ctypes.get_errno(), "setns"))
                return
            made.append(socket.socket())
        except OSError as error:
            made.append(error)
        finally:
            os.close(descriptor)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
