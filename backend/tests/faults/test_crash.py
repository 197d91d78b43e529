"""Processes that die at the worst moment."""

from __future__ import annotations

import asyncio
import signal
import time
import uuid

import aiohttp
import pytest

from tests.support.servers import new_user, token_for

pytestmark = pytest.mark.faults


async def test_a_message_committed_but_never_published_arrives_within_a_heartbeat(start_server, open_stream, meter):
    """Protocol 5.4: the process is killed between commit and publish; the head check of another delivers."""
    heartbeat_seconds = 2
    doomed = await start_server(failpoint="before_publish:kill", heartbeat_seconds=heartbeat_seconds)
    healthy = await start_server(heartbeat_seconds=heartbeat_seconds)
    ada, bob = new_user("ada"), new_user("bob")
    await healthy.know(ada, bob)
    stream = await open_stream(healthy, bob)
    body = {"recipient_id": bob, "content": "survives", "client_message_id": str(uuid.uuid4())}
    started = time.monotonic()
    with pytest.raises(aiohttp.ClientError):
        await doomed.call("POST", "/messages/send", user=ada, json=body)
    assert [m["content"] for m in await stream.messages(1, heartbeat_seconds + 2)] == ["survives"]
    assert time.monotonic() - started < heartbeat_seconds + 1 + meter.longest()

    status, message = await healthy.call("POST", "/messages/send", user=ada, json=body)
    assert (status, message["seq"]) == (200, 1)  # the retry finds it
    await healthy.send(ada, bob, "next")
    assert [m["content"] for m in await stream.messages(1)] == ["next"]
    assert stream.seqs == [1, 2]


async def test_what_had_come_before_a_sigterm_is_answered(start_server):
    """Protocol 7.1: a process that was busy, or stood still, has not accepted yet who waits for it."""
    server = await start_server()
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    await asyncio.gather(*(server.send(ada, bob) for _ in range(20)))  # connections that are kept
    server.signal(signal.SIGSTOP)
    body = {"recipient_id": bob, "content": "waits"}
    sends = [asyncio.create_task(server.call("POST", "/messages/send", user=ada, json=body)) for _ in range(60)]
    await asyncio.sleep(0.5)  # all are with the kernel: nobody can tell
    server.signal(signal.SIGTERM)
    server.signal(signal.SIGCONT)
    assert {status for status, _ in await asyncio.gather(*sends)} == {201}
    assert server.process is not None
    assert await asyncio.to_thread(server.process.wait, 20) == 0


async def test_sigterm_with_two_hundred_streams_and_sends_in_flight_loses_nothing(start_server, open_stream, meter):
    """Protocol 7.1: exit code 0 within 15 s; every client resumes elsewhere where it was."""
    leaving, staying = await asyncio.gather(start_server(), start_server())
    ada = new_user("ada")
    users = [new_user("user") for _ in range(50)]
    await staying.know(ada, *users)
    streams = [await open_stream(leaving, user) for user in users for _ in range(4)]
    acknowledged: dict[str, list[str]] = {user: [] for user in users}
    stop, is_all_sent = asyncio.Event(), asyncio.Event()

    async def keep_sending(user: str) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            body = {"recipient_id": user, "content": f"{number}", "client_message_id": str(uuid.uuid4())}
            for server in (leaving, staying):  # what a client does that is refused: the same key elsewhere
                try:
                    status, _ = await server.call("POST", "/messages/send", user=ada, json=body)
                except (aiohttp.ClientError, TimeoutError):
                    continue
                if status in (200, 201):
                    acknowledged[user].append(body["content"])
                    break
            await asyncio.sleep(0.05)

    async def follow(client) -> None:
        while len(client.contents) < len(acknowledged[client.user]) or not is_all_sent.is_set():
            try:
                await client.next(0.5)
            except TimeoutError:
                continue
            except (EOFError, ConnectionError, OSError):
                await client.open(staying)

    senders = [asyncio.create_task(keep_sending(user)) for user in users]
    followers = [asyncio.create_task(follow(client)) for client in streams]
    async with asyncio.timeout(10):
        while min(map(len, acknowledged.values())) < 3:
            await asyncio.sleep(0.02)
    started = time.monotonic()
    exit_code = await leaving.terminate(20)
    assert exit_code == 0, leaving.log_tail()
    assert time.monotonic() - started < 15 + meter.longest()
    await asyncio.sleep(0.5)  # sends go on over the remaining process
    stop.set()
    await asyncio.gather(*senders)
    is_all_sent.set()
    async with asyncio.timeout(20):
        await asyncio.gather(*followers)
    for client in streams:
        assert client.contents == acknowledged[client.user]
        assert client.seqs == list(range(1, len(client.contents) + 1))


async def test_a_stream_says_when_to_come_back_before_it_is_drained(start_server, open_stream):
    """Protocol 7.1: the last block is a `retry:`."""
    server = await start_server()
    stream = await open_stream(server, new_user("bob"))
    ended = asyncio.create_task(stream.until_end())
    assert await server.terminate() == 0
    assert (await ended)[-1].retry is not None


async def test_a_client_that_hangs_up_while_its_send_commits_leaves_no_half_state(server, open_stream, connection):
    """Protocol 2.2: either no message, or a message that is delivered."""
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    stream = await open_stream(server, bob)

    async def send_and_hang_up(number: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        body = b'{"recipient_id":"%b","content":"%d"}' % (bob.encode(), number)
        head = (
            f"POST /api/v1/messages/send HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token_for(ada)}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
        await asyncio.sleep((number % 40) / 10_000)
        writer.transport.abort()

    for start in range(0, 300, 30):
        await asyncio.gather(*(send_and_hang_up(number) for number in range(start, start + 30)))
    await server.send(ada, bob, "last")
    async with asyncio.timeout(15):  # some of the others may still be on their way to the database
        while len(stream.contents) < await connection.fetchval("SELECT count(*) FROM messages"):
            await stream.until("new_message", 10)
    committed = await connection.fetch("SELECT content FROM messages ORDER BY seq")
    assert stream.contents == [row["content"] for row in committed]
    assert stream.seqs == list(range(1, len(committed) + 1))
    assert len(committed) > 1
