"""What clients and proxies do to connections: no stream may outlive its client, no byte its stream."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress

import pytest

from tests.hardening.raw import Raw, descriptors, eventually, redis_of, request, resident_mb, stream_request, watched
from tests.support.servers import API_KEY, new_user, token_for

pytestmark = pytest.mark.e2e

HEALTH = request("GET", "/health")
END_OF_RESPONSE = b"0\r\n\r\n"


async def open_raw(connect, server, user: str, *headers: str, **fields) -> Raw:
    raw = await connect(server, stream_request(user, *headers, **fields))
    await raw.until(b"event: connected")
    await raw.until(b"\n\n\r\n")
    return raw


# --- A second request on a stream's connection ---------------------------------------------------


@pytest.mark.parametrize("when", ["at once", "later"])
async def test_a_second_request_on_a_streams_connection_ends_it(server, connect, valkey, when):
    """Protocol 4.8: whole, half or no request at all: uvicorn would mark the wrong one as gone, for ever."""
    bob = new_user("bob")
    for behind in (HEALTH, HEALTH[:9], b"G", b"\0garbage\r\n\r\n"):
        if when == "at once":
            raw = await connect(server, stream_request(bob) + behind)
        else:
            raw = await open_raw(connect, server, bob)
            assert watched(valkey.url) == {bob}  # it is there, so that its going can be seen
            raw.write(behind)
        rest = await raw.rest(5)
        assert b'"status":"ok"' not in rest
        assert b"HTTP/1.1" not in rest or when == "at once"
        await eventually(lambda: not watched(valkey.url), 3, "the stream leaves")
    assert "Traceback" not in server.log.read_text()
    assert "unexpected_error" not in server.log.read_text()


async def test_half_of_a_request_line_that_is_completed_later_ends_the_stream(server, connect, valkey):
    """Protocol 4.8: the head of the second one begins before the stream exists and ends while it lives."""
    bob = new_user("bob")
    raw = await connect(server, stream_request(bob) + HEALTH[:9])
    with suppress(EOFError, ConnectionError):  # it may be cut at once
        await raw.until(b"event: connected", 3)
    raw.write(HEALTH[9:])
    await raw.rest(5)
    await eventually(lambda: not watched(valkey.url), 3, "the stream leaves")


async def test_requests_of_an_ordinary_connection_may_follow_each_other_and_a_stream_may_be_the_last(
    server, connect, valkey
):
    """Protocol 4.8: only what comes behind a stream is refused."""
    bob = new_user("bob")
    raw = await connect(server, HEALTH + HEALTH + stream_request(bob))
    assert [(await raw.answer()).status for _ in range(2)] == [200, 200]
    await raw.until(b"event: connected")
    raw.half_close()
    await raw.rest(5)
    await eventually(lambda: not watched(valkey.url), 3, "the stream leaves")


# --- The end of a stream -------------------------------------------------------------------------


async def _evict(server, connect, bob: str) -> None:
    await open_raw(connect, server, bob)


async def _revoke(server, connect, bob: str) -> None:
    status, _ = await server.call("POST", f"/users/{bob}/revoke", headers={"X-API-Key": API_KEY})
    assert status == 204


async def _expire(server, connect, bob: str) -> None:
    """The token does it."""


@pytest.mark.parametrize("end", [_evict, _revoke, _expire])
async def test_nothing_follows_the_end_of_a_stream_on_a_proxys_connection(start_server, connect, end):
    """Protocol 4.8, 7.2: the terminator is last, whatever is published meanwhile, and the server closes."""
    server = await start_server(max_streams_per_user=1)
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    token = token_for(bob, minutes=2.5 / 60) if end is _expire else None
    raw = await connect(server, HEALTH)
    assert (await raw.answer()).headers.get("connection") != "close"  # a connection that is kept
    raw.write(stream_request(bob, token=token))
    head = await raw.until(b"\r\n\r\n")
    assert b"connection: close\r\n" in head
    await raw.until(b"event: connected")

    is_over = asyncio.Event()

    async def publish() -> None:
        for number in range(2000):
            if is_over.is_set():
                return
            await server.send(ada, bob, f"{number}")

    publishing = asyncio.create_task(publish())
    await raw.until(b"new_message")  # the feed is there
    await end(server, connect, bob)
    body = await raw.rest(10)
    is_over.set()
    await publishing
    assert body.endswith(END_OF_RESPONSE)
    assert body.count(b"\r\n0\r\n\r\n") == 1
    assert b"HTTP/1.1" not in body


async def test_streams_that_are_evicted_while_they_open_are_told_to_come_back_and_not_refused(start_server, connect):
    """Protocol 4.7: EventSource would give up for ever; and no event stands before the status line."""
    server = await start_server(max_streams_per_user=1)
    bob = new_user("bob")
    opened = await asyncio.gather(*(connect(server, stream_request(bob)) for _ in range(8)))
    heads = await asyncio.gather(*(raw.until(b"\r\n\r\n") for raw in opened))
    assert {head.split(b"\r\n")[0] for head in heads} == {b"HTTP/1.1 200 OK"}
    bodies = await asyncio.gather(*(raw.until(b"\n\n") for raw in opened))
    assert all(b"\nretry: " in body for body in bodies)


async def test_a_client_that_goes_takes_its_stream_along(server, connect, valkey):
    """Protocol 1.2: also one that only half-closes, which EventSource never does and scripts do."""
    bob = new_user("bob")
    early = await connect(server, stream_request(bob))
    early.half_close()
    await early.rest(5)
    await eventually(lambda: not watched(valkey.url), 5, "the stream leaves")
    for leave in (Raw.half_close, Raw.reset, lambda raw: raw.writer.close()):
        raw = await open_raw(connect, server, bob)
        assert watched(valkey.url) == {bob}
        leave(raw)
        await eventually(lambda: not watched(valkey.url), 5, "the stream leaves")


async def test_a_client_that_speaks_http_1_0_without_a_host_is_served_and_then_closed(start_server, connect, valkey):
    """Protocol 4.8: nginx asks its upstreams in this version unless told otherwise."""
    server = await start_server(heartbeat_seconds=1)
    bob = new_user("bob")
    raw = await connect(server, b"GET /health HTTP/1.0\r\n\r\n")
    assert (await raw.answer()).status == 200
    assert await raw.rest(5) == b""
    raw = await open_raw(connect, server, bob, version="1.0")
    await raw.until(b"heartbeat", 12)
    raw.half_close()
    await raw.rest(5)
    await eventually(lambda: not watched(valkey.url), 3, "the stream leaves")


# --- Who holds a connection without using it -----------------------------------------------------

SEND = "/api/v1/messages/send"
HOLDERS = {
    "nothing at all": (b"", b""),
    "a head, byte by byte": (b"GET /health HTTP/1.1\r\nHost: a\r\nX: ", b"x"),
    "a body, byte by byte": (request("POST", SEND, "Content-Type: application/json", "Content-Length: 999"), b"x"),
    "a refused body, byte by byte": (request("POST", SEND, "Content-Type: text/plain", "Content-Length: 999"), b"x"),
    "chunks without an end": (
        request("POST", SEND, "Content-Type: application/json", "Transfer-Encoding: chunked"),
        b"1\r\nx\r\n",
    ),
    "an empty line after an answer": (HEALTH, b"\r\n"),
    "half a request after an answer": (HEALTH, b"G"),
}


@pytest.mark.timeout(60)
async def test_no_connection_is_held_by_trickling_bytes(server, connect):
    """Protocol 9.5: each is gone within 12 s, and nobody else waits meanwhile."""
    baseline = descriptors(server.pid)
    started = time.monotonic()

    async def hold(first: bytes, drop: bytes) -> tuple[float, bytes]:
        raw = await connect(server, first)
        answered = asyncio.create_task(raw.rest(15))
        for _ in range(28):
            if answered.done():
                break
            raw.write(drop)
            await asyncio.wait({answered}, timeout=0.5)
        try:
            return time.monotonic() - started, await answered
        except TimeoutError:
            return 99, b""

    async def look() -> float:
        slowest = 0.0
        while not holding.done():
            asked = time.monotonic()
            assert (await server.call("GET", "/health"))[0] == 200
            slowest = max(slowest, time.monotonic() - asked)
            await asyncio.sleep(0.2)
        return slowest

    holding = asyncio.gather(*(hold(*how) for how in HOLDERS.values()))
    slowest, held = await asyncio.gather(look(), holding)
    assert {name: seconds for name, (seconds, _) in zip(HOLDERS, held, strict=True) if seconds > 13} == {}
    await eventually(lambda: descriptors(server.pid) <= baseline + 2, 5, "the server closes them, too")
    assert slowest < 2  # on a machine that others use, too


ENDLESS = [
    b"GET /health HTTP/1.1\r\nHost: a\r\nX: ",
    b"GET /health?",
    b"GET /health HTTP/1.1\r\nHost: a\r\n",
    request("POST", SEND, "Content-Type: application/json", "Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\nTrailer: ",
    request("POST", SEND, "Content-Type: application/json", "Transfer-Encoding: chunked") + b"1;extension=",
]


async def test_a_head_without_an_end_is_cut_and_costs_no_memory(server, connect):
    """Protocol 9.5: a header, a request line, many headers, a trailer: uvicorn itself would take gigabytes."""
    before = resident_mb(server.pid)
    for endless in ENDLESS:
        raw = await connect(server, endless)
        piece = b"a: b\r\n" * 40_000 if endless.endswith(b"\n") else b"x" * 240_000
        written = 0
        try:
            async with asyncio.timeout(10):
                while written < 200_000_000:
                    raw.write(piece)
                    written += len(piece)
                    await raw.writer.drain()
        except ConnectionError:
            pass
        assert written < 60_000_000, endless  # what the sockets hold, and no more
        assert resident_mb(server.pid) - before < 30
        assert (await server.call("GET", "/health"))[0] == 200


# --- Unsubscribe and subscribe at once -----------------------------------------------------------


async def test_closing_and_opening_in_the_same_moment_never_leaves_a_stream_deaf(server, open_stream, connect, valkey):
    """Protocol 1.2: the last of UNSUBSCRIBE and SUBSCRIBE wins, and it is the one that is wanted."""
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    for round_number in range(25):
        old = await connect(server, stream_request(bob))
        await old.until(b"event: connected")
        opening = asyncio.create_task(open_stream(server, bob))
        if round_number % 2:
            await asyncio.sleep(0)
        old.reset()
        stream = await opening
        await server.send(ada, bob, f"{round_number}")
        assert [m["content"] for m in await stream.messages(1, 3)] == [f"{round_number}"]
        stream.cut()
    with redis_of(valkey.url) as client:
        assert dict(client.pubsub_numsub(f"user:{bob}"))[f"user:{bob}".encode()] <= 1
    await eventually(lambda: not watched(valkey.url), 3, "the streams leave")


async def test_a_drain_that_begins_while_streams_open_refuses_none_of_them_for_ever(server, connect):
    """Protocol 4.7, 7.1: each is told to come back, or finds nobody listening; the process exits with 0."""
    users = [new_user("u") for _ in range(60)]
    await server.know(users[0])

    async def open_until_it_ends(user: str) -> bytes:
        raw = await connect(server, stream_request(user))
        return await raw.rest(14)

    opening = [asyncio.create_task(open_until_it_ends(user)) for user in users]
    await asyncio.wait(opening, timeout=0.03)
    code = await server.terminate()
    received = [task.result() for task in (await asyncio.wait(opening))[0] if task.exception() is None]
    assert code == 0
    answered = [text for text in received if text]
    assert answered
    assert {text.split(b"\r\n")[0] for text in answered} == {b"HTTP/1.1 200 OK"}
    assert all(b"retry: " in text and text.endswith(END_OF_RESPONSE) for text in answered)


async def test_clients_that_give_up_before_it_is_their_turn_are_no_lines_in_the_log(server, open_stream, connect):
    """Protocol 4.1: a storm is full of them; a line each would cost more than the streams."""
    user = new_user("ann")
    await server.know(user)
    waiting = [await connect(server, b"") for _ in range(200)]
    await open_stream(server, user)  # by then all of them are accepted
    server.signal(signal.SIGSTOP)
    for raw in waiting:
        raw.write(stream_request(user))
    server.signal(signal.SIGCONT)
    for raw in waiting:
        raw.reset()
    await open_stream(server, user)
    log = server.log.read_text()
    assert sum("request" in line and "stream" in line for line in log.splitlines()) < 10
    assert "Traceback" not in log
