"""What the kernel knows of a process, and what it can be made to do to it."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """How long a process has run on a processor, by itself and in the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def virtual_bytes(pid: int) -> int:
    """The address space of a process: what RLIMIT_AS bounds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def client_ports(pid: int, port: int) -> set[int]:
    """The other ends of the TCP connections to loopback port `port` that a process holds."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            inodes.add(str(entry.readlink()).removeprefix("socket:[").removesuffix("]"))
    rows = (line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:])
    return {_port(row[2]) for row in rows if row[9] in inodes and _port(row[1]) == port and row[3] == "01"}


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


@contextmanager
def limited(pid: int, kind: int, limit: int) -> Iterator[None]:
    """Hold a process to a limit (`resource.RLIMIT_…`) for the length of the block, or to the end of its life."""
    soft, hard = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (limit, hard))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, kind, (soft, hard))


@contextmanager
def busy_loops(count: int, *, niceness: int, at_most_seconds: float) -> Iterator[None]:
    """Keep processors busy for the length of the block, and no longer than so many seconds whatever happens."""
    work = f"import time; end = time.monotonic() + {at_most_seconds}\nwhile time.monotonic() < end: pass"
    loops = [subprocess.Popen(["nice", "-n", str(niceness), sys.executable, "-c", work]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
