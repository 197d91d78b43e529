"""Clients that ask for much and read nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.servers import new_user
from tests.support.streams import StreamClient

pytestmark = pytest.mark.faults

STREAMS = 60
LARGEST = "\N{GRINNING FACE}" * 10_000  # 40 KB


def resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


async def test_a_replay_that_nobody_reads_holds_a_page_and_not_the_inbox(start_server, open_stream):
    """Protocol 5.2, 7.3: a hundred of the largest messages are missed by each; memory stays bounded."""
    server = await start_server(max_streams_per_user=STREAMS)
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    origin = (await open_stream(server, bob)).events[-1].json["cursor"]
    for _ in range(100):
        await server.send(ada, bob, LARGEST)
    before = resident_mb(server.pid)
    clients = [StreamClient(server, bob, cursor=origin) for _ in range(STREAMS)]
    try:
        for client in clients:
            await client.open(receive_buffer=4096)
            client.stop_reading()
        peak = before
        for _ in range(20):
            await asyncio.sleep(0.1)
            peak = max(peak, resident_mb(server.pid))
        assert (peak - before) / STREAMS < 2.5  # half of it is the transport's
    finally:
        for client in clients:
            client.cut()
    reader = await open_stream(server, bob, cursor=origin)
    await reader.messages(100, 20)
    assert reader.seqs == list(range(1, 101))
    assert "resync" not in {event.name for event in reader.events}
