from __future__ import annotations

import asyncio
import time

import pytest

from tests.hardening.raw import *
from tests.support.servers import new_user


async def test_d1_close_kills_reader(server, open_stream, valkey):
    bob, eve = new_user("bob"), new_user("eve")
    a = await open_stream(server, bob)
    b = await open_stream(server, eve)
    before = subscriber_ids(valkey.url)
    redis_of(valkey.url).publish(f"user:{bob}", b"!close %d" % (time.time() + 10))
    print(await a.until_end())
    await asyncio.sleep(0.5)
    print(before, subscriber_ids(valkey.url), server.log_tail()[-1500:])
    assert before == subscriber_ids(valkey.url)


async def test_d2_evicted_opening(start_server):
    server = await start_server(max_streams_per_user=1)
    bob = new_user("bob")
    raws = [await Raw.to(server, stream_request(bob)) for _ in range(6)]
    for r in raws[:-1]:
        print(await r.rest(8))
    raws[-1].reset()


@pytest.mark.parametrize(
    "how", ["once", "later", "half_once_rest", "half_once", "half_later", "garbage_later", "close_later", "upgrade"]
)
async def test_d3(server, valkey, how):
    bob = new_user("bob")
    first = stream_request(bob)
    second = request("GET", "/health")
    if how == "once":
        raw = await Raw.to(server, first + second)
    elif how.startswith("half_once"):
        raw = await Raw.to(server, first + second[:9])
        try:
            print(await raw.until(b"connected", 3))
        except Exception as e:
            print(repr(e))
        if how == "half_once_rest":
            raw.write(second[9:])
    else:
        extra = {"close_later": ["Connection: close"], "upgrade": ["Connection: Upgrade", "Upgrade: websocket"]}.get(
            how, []
        )
        raw = await Raw.to(server, stream_request(bob, *extra))
        await raw.until(b"connected")
        raw.write(
            second[:9]
            if how == "half_later"
            else b"\x00\x01\x02 garbage\r\n\r\n"
            if how in ("garbage_later",)
            else second
        )
    t = time.monotonic()
    try:
        print("REST", (await raw.rest(13))[-300:], time.monotonic() - t)
    except TimeoutError:
        print("STILL OPEN")
    await asyncio.sleep(0.3)
    print(watched(valkey.url), server.log_tail()[-2500:])


async def test_d4(server):
    cases = {
        "415 then byte": (
            request("POST", "/api/v1/messages/send", "Content-Type: text/plain", "Content-Length: 1000"),
            b"x",
        ),
        "crlf after": (request("GET", "/health"), b"\r\n"),
        "upgrade after": (request("GET", "/health", "Connection: Upgrade", "Upgrade: h2c"), b"x"),
    }

    async def one(name, first, more):
        raw = await Raw.to(server, first)
        a = await raw.answer()
        raw.write(more)
        t = time.monotonic()
        try:
            await raw.rest(14)
            return name, a.status, "closed", time.monotonic() - t
        except TimeoutError:
            return name, a.status, "OPEN"

    print(await asyncio.gather(*(one(n, *v) for n, v in cases.items())))


async def test_d5(server):
    print(resident_mb(server.pid))
    for first in (b"GET /health HTTP/1.1\r\nHost: a\r\nX: ", b"GET /health?"):
        raw = await Raw.to(server, first)
        t = time.monotonic()
        n = 0
        slow = 0
        try:
            while time.monotonic() - t < 3 and n < 400:
                raw.write(b"x" * 1_000_000)
                n += 1
                await raw.writer.drain()
                if n % 50 == 0:
                    t1 = time.monotonic()
                    s, _ = await server.call("GET", "/health")
                    slow = max(slow, time.monotonic() - t1)
        except ConnectionError as e:
            print(repr(e))
        print(first[:20], n, "MB", resident_mb(server.pid), "slowest health", slow)
        raw.reset()


async def test_d9(server):
    bob = new_user("bob")
    for p in (
        "/api/v1/users/me/",
        f"/api/v1/messages/stream/?user_id={bob}&ticket=secret",
        "/api/v1/users/me%0d%0aX:1/",
    ):
        raw = await Raw.to(server, request("GET", p, user=bob))
        a = await raw.answer()
        print(a)
        raw.reset()


async def test_d10(server):
    bob = new_user("bob")
    from app.auth import cookie_name

    for val in ("x", "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJhIjoxfQ.c2ln"):
        c = "; ".join([f"{cookie_name(bob)}={val}"] * 20000)
        raw = await Raw.to(server, f"GET {STREAM}?user_id={bob} HTTP/1.1\r\nHost: a\r\nCookie: {c}\r\n\r\n".encode())
        t = time.monotonic()
        a = await raw.answer()
        print(len(c), a.status, time.monotonic() - t)
        raw.reset()


async def test_http10(server):
    bob = new_user("bob")
    raw = await Raw.to(server, stream_request(bob, version="1.0"))
    print(await raw.until(b"connected"), await asyncio.wait_for(raw.reader.read(300), 3))
    raw.half_close()
    print(await raw.rest(5))


async def test_d7(server, open_stream, valkey):
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    s = await open_stream(server, bob)
    m = await server.send(ada, bob, "one")
    await s.messages(1)
    redis_of(valkey.url).publish(f"user:{bob}", b":999\nevent: message_deleted\ndata: {}\n\n")
    await asyncio.sleep(0.3)
    await server.call("PATCH", f"/messages/{m['id']}", user=ada, json={"content": "edited"})
    try:
        print(await s.until("message_edited", 12))
    finally:
        print([(e.name, e.data[:80]) for e in s.events])

async def test_d8(server, valkey, open_stream):
    bob = new_user("bob")
    s = await open_stream(server, bob)
    r = redis_of(valkey.url)
    r.execute_command("ACL", "SETUSER", "default", "resetchannels", "&user:*")
    r.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    await asyncio.sleep(0.3)
    a = max(int(c["id"]) for c in r.client_list())
    await asyncio.sleep(3)
    b = max(int(c["id"]) for c in r.client_list())
    print("connections in 3s", b - a, server.log_tail()[-1500:])
    r.execute_command("ACL", "SETUSER", "default", "allchannels")
    await asyncio.sleep(4)
    print(server.log_tail()[-600:])

async def test_slow_reader_of_answer(server):
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    m = None
    for i in range(100):
        m = await server.send(ada, bob, "x" * 9900)
    import socket
    c = socket.socket(); c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048); c.setblocking(False)
    await asyncio.get_running_loop().sock_connect(c, ("127.0.0.1", server.port))
    await asyncio.get_running_loop().sock_sendall(c, request("GET", f"/api/v1/conversations/{m['conversation_id']}/messages?limit=100", user=ada)*4)
    n = descriptors(server.pid)
    await asyncio.sleep(60)
    print(n, descriptors(server.pid))
    import subprocess
    print(subprocess.run(["ss", "-tnoi", f"sport = :{server.port}"], capture_output=True, text=True).stdout)
    c.close()
