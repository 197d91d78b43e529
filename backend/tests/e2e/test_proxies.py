"""The proxy configurations of deploy/ run in front of a real server, with nothing changed but names and ports."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.commands import run
from tests.support.ports import free_port
from tests.support.servers import JWT_SECRET, Server, new_user, token_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(90)]

DEPLOY = Path(__file__).parents[3] / "deploy"
NAME = "chat.example.com"
CERTIFICATE = "certificate.pem"
SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"  # where Debian puts them, off a user's PATH


def find(program: str) -> str | None:
    return shutil.which(program, path=SBIN)


needs = {
    program: pytest.mark.skipif(find(program) is None, reason=f"{program} is not installed")
    for program in ("nginx", "haproxy", "curl")
}


@dataclass
class Proxy:
    """A running proxy: one port for https as configured, one for plain http to look at."""

    server: Server
    https_port: int
    http_port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def behind(self) -> Server:
        """The server as clients behind the proxy see it."""
        return replace(self.server, port=self.http_port)


StartProxy = Callable[..., Awaitable[Proxy]]


@pytest.fixture
async def start_proxy(tmp_path: Path) -> AsyncIterator[StartProxy]:
    """Start nginx or HAProxy on its file of deploy/; `edit` changes the text first."""
    started: list[Proxy] = []

    async def start(program: str, server: Server, *, edit: Callable[[str], str] = str) -> Proxy:
        ports = free_port(), free_port()
        make_certificate(tmp_path / CERTIFICATE)
        configure = _nginx if program == "nginx" else _haproxy
        arguments = configure(tmp_path, server, ports, edit)
        log = tmp_path / f"{program}.log"
        with log.open("ab") as file:
            process = subprocess.Popen([find(program) or program, *arguments], cwd=tmp_path, stdout=file, stderr=file)
        proxy = Proxy(server, *ports, process, log)
        started.append(proxy)
        await until_forwarding(proxy)
        return proxy

    try:
        yield start
    finally:
        for proxy in started:
            proxy.process.send_signal(signal.SIGTERM)
            proxy.process.wait(10)


def _nginx(folder: Path, server: Server, ports: tuple[int, int], edit: Callable[[str], str]) -> list[str]:
    listen = f"listen 127.0.0.1:{ports[0]} ssl http2; listen 127.0.0.1:{ports[1]};"
    changes = {
        "listen 443 ssl http2;": listen,
        "127.0.0.1:8000": f"127.0.0.1:{server.port}",
        f"/etc/ssl/{NAME}.pem": str(folder / CERTIFICATE),
        f"/etc/ssl/{NAME}.key": str(folder / CERTIFICATE),
    }
    (folder / "site.conf").write_text(edit(replaced((DEPLOY / "nginx.conf").read_text(), changes)))
    # Around it, compression switched on for everything: the worst that a site can meet.
    (folder / "nginx.conf").write_text(
        "daemon off; pid nginx.pid; error_log stderr; events {} http { access_log access.log;"
        " gzip on; gzip_min_length 0; gzip_proxied any; gzip_types text/event-stream application/json;"
        " client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;"
        " scgi_temp_path scgi; include site.conf; }"
    )
    return ["-p", str(folder), "-c", "nginx.conf"]


def _haproxy(folder: Path, server: Server, ports: tuple[int, int], edit: Callable[[str], str]) -> list[str]:
    bind = f"bind 127.0.0.1:{ports[0]} ssl crt {folder / CERTIFICATE} alpn h2,http/1.1"
    changes = {
        f"bind :443 ssl crt /etc/haproxy/{NAME}.pem alpn h2,http/1.1": f"{bind}\n    bind 127.0.0.1:{ports[1]}",
        "127.0.0.1:8000": f"127.0.0.1:{server.port}",
    }
    (folder / "haproxy.cfg").write_text(edit(replaced((DEPLOY / "haproxy.cfg").read_text(), changes)))
    return ["-db", "-f", "haproxy.cfg"]


def replaced(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert old in text, f"{old} is not in the file any more"
        text = text.replace(old, new)
    return text


def make_certificate(file: Path) -> None:
    """Write a certificate with its key into one file, which both proxies read."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(certificate.public_bytes(pem) + private)


async def until_forwarding(proxy: Proxy) -> None:
    """Wait until a request reaches the server: HAProxy sends none before its first check has passed."""
    status = 0
    async with aiohttp.ClientSession() as session:
        for _ in range(200):
            assert proxy.process.poll() is None, proxy.log.read_text()
            with suppress(aiohttp.ClientError):
                async with session.get(f"{proxy.behind.url}/api/v1/users/me") as response:
                    status = response.status
            if status == 401:
                return
            await asyncio.sleep(0.05)
    raise AssertionError(f"{status} {proxy.log.read_text()}")


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
    assert server.process is not None
    assert server.process.stdout is not None
    server.process.stdout.close()  # it starts again below, with a pipe of its own
    await stream.until_end()
    for _ in range(3):  # before HAProxy has noticed, and after
        for origin, allowed in (("https://app.example.com", True), ("https://evil.example.com", False)):
            async with aiohttp.ClientSession(headers={"Origin": origin}) as session:
                async with session.get(f"{proxy.behind.url}/api/v1/messages/stream?user_id={bob}") as response:
                    assert response.status == 200
                    assert response.content_type == "text/event-stream"
                    assert (response.headers.get("Access-Control-Allow-Origin") == origin) is allowed
                    assert re.fullmatch(r"retry: 1\d{4}\n\n", await response.text())
                async with session.get(f"{proxy.behind.url}/api/v1/users/me") as response:
                    assert response.status in {502, 503}
        await asyncio.sleep(1)
    await server.start()
    await until_forwarding(proxy)
    await stream.connected()
    assert stream.events[-1].json["recovered"] is True


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
