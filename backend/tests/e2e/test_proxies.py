"""The proxy configurations of deploy/ run in front of a real server, with nothing changed but names and ports."""

from __future__ import annotations

import asyncio
import itertools
import re
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from tests.support import proxies as support
from tests.support.commands import run
from tests.support.proxies import CERTIFICATE, NAME, Proxy, needs, replaced, until_forwarding
from tests.support.servers import JWT_SECRET, Server, new_user, token_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(90)]

StartProxy = Callable[..., Awaitable[Proxy]]


@pytest.fixture
async def start_proxy(tmp_path: Path) -> AsyncIterator[StartProxy]:
    """Start nginx or HAProxy on its file of deploy/; `edit` changes the text first."""
    started: list[Proxy] = []

    async def start(program: str, *servers: Server, edit: Callable[[str], str] = str) -> Proxy:
        started.append(await support.start_proxy(program, tmp_path, servers, edit=edit))
        return started[-1]

    try:
        yield start
    finally:
        for proxy in started:
            proxy.stop()


async def open_streams(server: Server) -> float:
    async with aiohttp.ClientSession() as session, session.get(f"{server.url}/metrics") as response:
        found = re.search(r"^gapless_streams_open (\S+)$", await response.text(), re.MULTILINE)
    assert found is not None
    return float(found[1])


proxies = pytest.mark.parametrize(
    "program", [pytest.param("nginx", marks=needs["nginx"]), pytest.param("haproxy", marks=needs["haproxy"])]
)


@proxies
async def test_events_come_through_at_once_and_heartbeats_pass(program, start_server, start_proxy, open_stream):
    """Protocol 7.4: heartbeats about every HEARTBEAT_SECONDS. And what a client leaves is left by the proxy, too."""
    server = await start_server(app_env="development", heartbeat_seconds=1)
    proxy = await start_proxy(program, server)
    ada, bob = new_user("ada"), new_user("bob")
    await proxy.behind.know(ada, bob)
    stream = await open_stream(proxy.behind, bob)
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert "content-encoding" not in stream.headers
    for text in ("one", "two", "three"):
        message = await proxy.behind.send(ada, bob, text)
        assert (await stream.until("new_message", timeout_seconds=1)).json == message
    beats = [await stream.until("heartbeat", timeout_seconds=3) for _ in range(3)]
    assert all(later.at - sooner.at < 2 for sooner, later in itertools.pairwise(beats))
    assert await open_streams(server) == 1
    stream.cut()
    for _ in range(100):
        if await open_streams(server) == 0:
            break
        await asyncio.sleep(0.05)
    assert await open_streams(server) == 0


@proxies
@needs["curl"]
async def test_https_and_http2_with_the_stream_cookie(program, start_server, start_proxy, tmp_path):
    """Protocol 9.1: behind TLS the cookie is Secure, and a page of the proxy's own name may use it."""
    server = await start_server(heartbeat_seconds=1)
    proxy = await start_proxy(program, server)
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    origin = f"https://{NAME}:{proxy.https_port}"
    curl = [
        *("curl", "--silent", "--show-error", "--no-buffer", "--include", "--http2", "--compressed"),
        *("--cacert", f"{tmp_path / CERTIFICATE}", "--resolve", f"{NAME}:{proxy.https_port}:127.0.0.1"),
        *("--cookie", f"{tmp_path}/jar", "--cookie-jar", f"{tmp_path}/jar", "--header", f"Origin: {origin}"),
    ]
    signed_in = await output_of(
        *curl, "--request", "POST", "--header", f"Authorization: Bearer {token_for(bob)}",
        f"{origin}/api/v1/messages/stream/session",
    )  # fmt: skip
    assert re.search(r"(?im)^set-cookie: gapless_stream_\w+=.*; Secure", signed_in), signed_in

    stream = await asyncio.create_subprocess_exec(
        *curl, f"{origin}/api/v1/messages/stream?user_id={bob}", stdout=subprocess.PIPE
    )
    try:
        head = await lines_until(stream, "event: connected", seconds=5)
        assert head[0].strip() == "HTTP/2 200"
        assert not any(line.lower().startswith("content-encoding") for line in head)
        await server.send(ada, bob, "over h2")
        assert "over h2" in "".join(await lines_until(stream, 'data: {"id"', seconds=1))
    finally:
        stream.kill()
        await stream.communicate()


@proxies
async def test_a_server_that_is_gone_is_200_and_a_time_to_come_back(program, start_server, start_proxy, open_stream):
    """Protocol 4.7: EventSource would take a 502 or 503 of the proxy for the end."""
    server = await start_server()

    def allow_origin(text: str) -> str:
        line = '"https://app.example.com"' if program == "nginx" else "http-request set-var(txn.origin)"
        return replaced(text, {f"# {line}": line})

    proxy = await start_proxy(program, server, edit=allow_origin)
    bob = new_user("bob")
    stream = await open_stream(proxy.behind, bob)
    server.kill()
    await stream.until_end()
    for _ in range(3):  # before HAProxy has noticed, and after
        for origin, allowed in (("https://app.example.com", True), ("https://evil.example.com", False)):
            async with aiohttp.ClientSession(headers={"Origin": origin}) as session:
                async with session.get(f"{proxy.behind.url}/api/v1/messages/stream?user_id={bob}") as response:
                    assert response.status == 200
                    assert response.content_type == "text/event-stream"
                    assert (response.headers.get("Access-Control-Allow-Origin") == origin) is allowed
                    assert re.fullmatch(r"retry: ([2-9]\d{3}|10000)\n\n", await response.text())
                async with session.get(f"{proxy.behind.url}/api/v1/users/me") as response:
                    assert response.status in {502, 503}
        await asyncio.sleep(1)
    await server.start()
    await until_forwarding(proxy)
    await stream.connected()
    assert stream.events[-1].json["recovered"] is True


@needs["nginx"]
async def test_two_servers_that_are_away_in_turn_are_no_outage(start_server, start_proxy):
    """By default nginx leaves out the first until a request to it has ended, and has nobody when the second goes."""
    servers = [await start_server(), await start_server()]
    proxy = await start_proxy("nginx", *servers)
    for server in servers:
        server.kill()
        assert await statuses_of(proxy, requests=10) == {401}
        await server.start()
    assert await statuses_of(proxy, requests=10) == {401}


async def statuses_of(proxy: Proxy, *, requests: int) -> set[int]:
    statuses = set()
    async with aiohttp.ClientSession() as session:
        for _ in range(requests):
            async with session.get(f"{proxy.behind.url}/api/v1/users/me") as response:
                statuses.add(response.status)
    return statuses


@proxies
async def test_doctor_is_content_and_probes_are_not_for_the_public(program, server, start_proxy, tmp_path):
    proxy = await start_proxy(program, server)
    done = await run(tmp_path, "doctor", "--url", proxy.behind.url, **settings_of(server))
    assert done.code == 0, done.out
    assert "A message arrived" in done.out
    async with aiohttp.ClientSession() as session:
        for path in ("/ready", "/health"):
            async with session.get(f"{proxy.behind.url}{path}") as response:
                assert response.status == 404
            async with session.get(f"{server.url}{path}") as response:
                assert response.status == 200


@needs["nginx"]
@pytest.mark.slow
async def test_doctor_sees_a_proxy_that_holds_the_stream_back(server, start_proxy, tmp_path):
    """What the tests above would see, too, if the line were missing."""

    def buffer(text: str) -> str:
        return replaced(text, {"proxy_buffering off;": "proxy_ignore_headers X-Accel-Buffering;", "gzip off;": ""})

    proxy = await start_proxy("nginx", server, edit=buffer)
    done = await run(tmp_path, "doctor", "--url", proxy.behind.url, **settings_of(server))
    assert done.code == 1
    assert "A proxy in front holds the response back" in done.out


def settings_of(server: Server) -> dict[str, str]:
    return {"DATABASE_URL": server.database_url, "REDIS_URL": server.redis_url, "AUTH_JWT_SECRET": JWT_SECRET}


async def output_of(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    async with asyncio.timeout(10):
        out, _ = await process.communicate()
    return out.decode()


async def lines_until(process: asyncio.subprocess.Process, beginning: str, *, seconds: float) -> list[str]:
    """Read lines up to and with the first that begins so."""
    assert process.stdout is not None
    lines: list[str] = []
    async with asyncio.timeout(seconds):
        while not lines or not lines[-1].startswith(beginning):
            line = await process.stdout.readline()
            assert line, lines
            lines.append(line.decode())
    return lines
