"""Clients that do not read: closed in time, with bounded memory, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.servers import new_user
from tests.support.streams import StreamClient

pytestmark = pytest.mark.faults

TEXT = "x" * 4000
MESSAGES = 600  # 2.4 MB to a client that reads nothing: far over every buffer on the way


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_a_client_that_stops_reading_is_closed_and_loses_nothing(server, open_stream):
    """Protocol 7.3: ended within the time a page may take; others do not notice; its cursor heals it."""
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    stopped = StreamClient(server, bob)
    await stopped.open(receive_buffer=4096)
    await stopped.until("connected")
    stopped.stop_reading()
    reading = await open_stream(server, bob)
    before = resident_bytes(server.pid)
    for start in range(0, MESSAGES, 20):
        await asyncio.gather(*(server.send(ada, bob, f"{start + n} {TEXT}") for n in range(20)))
    received = await reading.messages(MESSAGES, 20)
    assert [m["seq"] for m in received] == list(range(1, MESSAGES + 1))
    assert resident_bytes(server.pid) - before < 30 * 2**20
    # It reads again after it was given up, and comes back with its cursor.
    deadline = time.monotonic() + 20
    while is_established(server.port, stopped):
        assert time.monotonic() < deadline, "the server still holds the stream"
        await asyncio.sleep(0.2)
    stopped.go_on_reading()
    await stopped.until_end()
    assert len(stopped.contents) < MESSAGES
    stopped.cut()
    await stopped.open()
    while len(stopped.contents) < MESSAGES:
        await stopped.next(10)
    stopped.cut()
    assert stopped.seqs == list(range(1, MESSAGES + 1))
    assert [text.split()[0] for text in stopped.contents] == [m["content"].split()[0] for m in received]


def is_established(port: int, client: StreamClient) -> bool:
    """Whether the server's end of a client's connection is still there."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, remote, state = line.split()[1:4]
        if int(local.split(":")[1], 16) == port and int(remote.split(":")[1], 16) == client.local_port:
            return state == "01"  # established
    return False


async def test_a_client_that_is_slow_for_a_while_catches_up_on_the_same_stream(server, open_stream):
    """Protocol 7.3: what does not fit is read again from PostgreSQL, not lost and not a reason to end."""
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    stream = StreamClient(server, bob)
    await stream.open(receive_buffer=4096)
    await stream.until("connected")
    stream.stop_reading()
    for start in range(0, 200, 20):
        await asyncio.gather(*(server.send(ada, bob, f"{start + n} {TEXT}") for n in range(20)))
    stream.go_on_reading()
    assert [m["seq"] for m in await stream.messages(200, 15)] == list(range(1, 201))
    assert stream.seqs == list(range(1, 201))
    stream.cut()


async def test_a_frozen_postgresql_ends_sends_in_time_and_streams_stay_open(
    start_server, open_stream, postgres, connection, meter
):
    """Protocol 8.2: 503 with Retry-After within 5 s; heartbeats go on; afterwards all is well."""
    server = await start_server(heartbeat_seconds=1)
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    await server.send(ada, bob, "before")
    stream = await open_stream(server, bob)
    backends = await connection.fetch(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    pids = [row["pid"] for row in backends]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        statuses = await asyncio.gather(
            *(
                server.call("POST", "/messages/send", user=ada, json={"recipient_id": bob, "content": f"{n}"})
                for n in range(5)
            )
        )
        assert {status for status, _ in statuses} <= {201, 503}
        assert time.monotonic() - started < 6 + meter.longest()
        await stream.until("heartbeat", 3)
        await stream.until("heartbeat", 3)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    async with asyncio.timeout(5):
        status = 503
        while status != 201:
            body = {"recipient_id": bob, "content": "after"}
            status, _ = await server.call("POST", "/messages/send", user=ada, json=body)
    async with asyncio.timeout(10):
        while not stream.contents or stream.contents[-1] != "after":
            await stream.next(10)
    committed = await connection.fetch("SELECT content FROM messages ORDER BY seq")
    assert stream.contents == [row["content"] for row in committed][1:]
