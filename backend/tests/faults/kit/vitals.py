"""What a process holds, and whether it lets go of it: streams, tasks, sockets, channels, connections, memory."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.faults.kit.cluster import Cluster
from tests.support.servers import Server

LET_GO_SECONDS = 15.0
READ_SECONDS = 5.0
# A probe, a check or a reconnection that happens to be under way.
SPARE_TASKS, SPARE_DESCRIPTORS = 3, 4
# The allocator gives back what it likes: this finds what grows with every message, not what grows once.
SPARE_MEGABYTES = 96


@dataclass(frozen=True, slots=True)
class Vitals:
    """One process. Descriptors are those that are no connection to PostgreSQL, whose pool grows and shrinks."""

    streams: int
    tasks: int
    descriptors: int
    megabytes: float


async def read_vitals(server: Server) -> Vitals:
    """Ask a process and the kernel. Raises TimeoutError when it does not answer."""
    told = await _told(server)
    held = descriptors_of(server.pid, server.database_url)
    return Vitals(told["streams"], told["tasks"], held, resident_megabytes(server.pid))


async def counted(server: Server, name: str) -> int:
    """Give what a process has counted under this name of its `Stats`. Raises TimeoutError when it does not answer."""
    count: int = (await _told(server))["counted"][name]
    return count


async def count(cluster: Cluster, name: str) -> int:
    """Add up what all processes have counted."""
    return sum([await counted(server, name) for server in cluster.servers])


async def _told(server: Server) -> dict[str, Any]:
    file = Path(server.environment["VITALS"])
    file.unlink(missing_ok=True)
    os.kill(server.pid, signal.SIGUSR1)
    async with asyncio.timeout(READ_SECONDS):
        while not file.exists():
            await asyncio.sleep(0.01)
    told: dict[str, Any] = json.loads(file.read_text())
    return told


async def leaks(cluster: Cluster, before: list[Vitals], *, spare_megabytes: float = SPARE_MEGABYTES) -> list[str]:
    """Say what is still held when all clients are gone, after time to let go of it; nothing is best."""
    for end in cluster.before_leak_check:
        end()
    deadline = time.monotonic() + LET_GO_SECONDS
    checks: list[Callable[[], Awaitable[list[str]]]] = [
        lambda: _held(cluster, before, spare_megabytes),
        lambda: _channels(cluster),
        lambda: _database_connections(cluster),
    ]
    found: list[str] = []
    for check in checks:
        while (still := await check()) and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
        found += still
    return found


async def vitals_of(cluster: Cluster) -> list[Vitals]:
    return [await read_vitals(server) for server in cluster.servers]


def as_json(vitals: list[Vitals]) -> list[dict[str, float]]:
    return [asdict(each) for each in vitals]


async def _held(cluster: Cluster, before: list[Vitals], spare_megabytes: float) -> list[str]:
    found = []
    for number, (server, was) in enumerate(zip(cluster.servers, before, strict=True)):
        now = await read_vitals(server)
        if now.streams > 0:
            found.append(f"process {number} holds {now.streams} streams")
        if now.tasks > was.tasks + SPARE_TASKS:
            found.append(f"process {number} has {now.tasks} tasks, {was.tasks} before")
        if now.descriptors > was.descriptors + SPARE_DESCRIPTORS:
            found.append(f"process {number} has {now.descriptors} descriptors, {was.descriptors} before")
        if now.megabytes > was.megabytes + spare_megabytes:
            found.append(f"process {number} has {now.megabytes:.0f} MB, {was.megabytes:.0f} before")
    return found


async def _channels(cluster: Cluster) -> list[str]:
    channels = await cluster.valkey.command("PUBSUB", "CHANNELS", "*user:*")
    assert isinstance(channels, list)
    return [f"{len(channels)} channels of users are subscribed to"] if channels else []


async def _database_connections(cluster: Cluster) -> list[str]:
    """None in a transaction, and no more than the pools of all processes may hold."""
    connection = await cluster.postgres.connect()
    try:
        rows = await connection.fetch(
            "SELECT state FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND application_name <> 'a scenario'"
        )
    finally:
        await connection.close()
    found = []
    if busy := [row["state"] for row in rows if row["state"] and "in transaction" in row["state"]]:
        found.append(f"{len(busy)} connections to PostgreSQL are in a transaction")
    most = MOST_CONNECTIONS * (len(cluster.servers) + cluster.other_processes)
    if len(rows) > most:
        found.append(f"{len(rows)} connections to PostgreSQL, at most {most}")
    return found


MOST_CONNECTIONS = 16


def descriptors_of(pid: int, database_url: str) -> int:
    """Open descriptors without connections to PostgreSQL."""
    url_port = int(re.findall(r":(\d+)/", database_url)[0])
    to_postgres = _sockets_to(pid, url_port)
    count = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            target = str(entry.readlink())
            inode = target[8:-1] if target.startswith("socket:[") else ""
            count += inode not in to_postgres
    return count


def _sockets_to(pid: int, port: int) -> set[str]:
    """The inodes of this network's TCP sockets whose other end is that port."""
    found = set()
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].rpartition(":")[2], 16) == port:
            found.add(fields[9])
    return found


def resident_megabytes(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024
