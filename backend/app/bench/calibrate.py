"""How fast this machine writes to sockets at all: what a server's deliveries are to be compared with.

Virtual machines differ, and the same one differs from hour to hour. One process writes 300 bytes to each of
1,000 connections in turn, on the server's core; another reads, on the load's. It runs as a program of its own:
`python -m app.bench.calibrate SERVER_CORES LOAD_CORES SECONDS`.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import sys
import time
from typing import Final

from app.bench.procs import Cores

CONNECTIONS: Final = 1000
WRITE_BYTES: Final = 300
WARM_UP_SECONDS: Final = 0.3


async def measure(cores: Cores, *, seconds: float) -> float | None:
    """Give the writes a second; None if it fails, for want of descriptors."""
    arguments = [",".join(map(str, some)) for some in (cores.server, cores.load)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.bench.calibrate", *arguments, str(seconds)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    output, _ = await process.communicate()
    return float(output) if process.returncode == 0 else None


def bare_writes_per_second(cores: Cores, *, seconds: float) -> float:
    """Measure here. Forks: not from inside an event loop."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS)
    pairs = []
    for _ in range(CONNECTIONS):
        reading = socket.create_connection(listener.getsockname())
        writing, _ = listener.accept()
        writing.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pairs.append((writing, reading))
    reader = os.fork()
    if reader == 0:
        _read([reading.fileno() for _, reading in pairs], cores)
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cores.server)
        sockets = [writing for writing, _ in pairs]
        _write(sockets, WARM_UP_SECONDS)  # buffers grow at first
        return _write(sockets, seconds)
    finally:
        os.sched_setaffinity(0, before)
        for pair in pairs:
            for end in pair:
                end.shutdown(socket.SHUT_RDWR)
                end.close()
        listener.close()
        os.waitpid(reader, 0)


def _write(sockets: list[socket.socket], seconds: float) -> float:
    data = b"x" * WRITE_BYTES
    count = 0
    start = time.perf_counter()
    while (took := time.perf_counter() - start) < seconds:
        for each in sockets:
            each.send(data)
        count += len(sockets)
    return count / took


def _read(descriptors: list[int], cores: Cores) -> None:
    """Read until everything has ended; the process ends with it."""
    os.sched_setaffinity(0, cores.load)
    poll = select.epoll()
    for descriptor in descriptors:
        poll.register(descriptor, select.EPOLLIN)
    is_open = True
    while is_open:
        for descriptor, _ in poll.poll():
            is_open = bool(os.read(descriptor, 65_536))
    os._exit(0)


if __name__ == "__main__":
    _server, _load = (tuple(map(int, text.split(","))) for text in sys.argv[1:3])
    print(bare_writes_per_second(Cores(_server, _load), seconds=float(sys.argv[3])))  # noqa: T201 - its answer
