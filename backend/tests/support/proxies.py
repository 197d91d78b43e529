"""The proxies of deploy/ in front of real servers, with nothing changed but names, ports and addresses."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.ports import free_port
from tests.support.servers import Server

DEPLOY = Path(__file__).parents[3] / "deploy"
NAME = "chat.example.com"
CERTIFICATE = "certificate.pem"
ADDRESS = "127.0.0.1:8000"
SERVER_NAMES = ("one", "two", "three")
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

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)


async def start_proxy(
    program: str, folder: Path, servers: Sequence[Server], *, edit: Callable[[str], str] = str
) -> Proxy:
    """Start nginx or HAProxy on its file of deploy/ in `folder`; `edit` changes the text first."""
    ports = free_port(), free_port()
    make_certificate(folder / CERTIFICATE)
    configure = _nginx if program == "nginx" else _haproxy
    arguments = configure(folder, servers, ports, edit)
    log = folder / f"{program}.log"
    with log.open("ab") as file:
        process = subprocess.Popen([find(program) or program, *arguments], cwd=folder, stdout=file, stderr=file)
    proxy = Proxy(servers[0], *ports, process, log)
    try:
        await until_forwarding(proxy)
    except BaseException:
        proxy.stop()
        raise
    return proxy


def _nginx(folder: Path, servers: Sequence[Server], ports: tuple[int, int], edit: Callable[[str], str]) -> list[str]:
    listen = f"listen 127.0.0.1:{ports[0]} ssl http2; listen 127.0.0.1:{ports[1]};"
    changes = {
        "listen 443 ssl http2;": listen,
        f"/etc/ssl/{NAME}.pem": str(folder / CERTIFICATE),
        f"/etc/ssl/{NAME}.key": str(folder / CERTIFICATE),
    }
    text = _with_servers((DEPLOY / "nginx.conf").read_text(), servers)
    (folder / "site.conf").write_text(edit(replaced(text, changes)))
    # Around it, compression switched on for everything: the worst that a site can meet.
    (folder / "nginx.conf").write_text(
        "daemon off; pid nginx.pid; error_log stderr; events { worker_connections 8192; } http { access_log access.log;"
        " gzip on; gzip_min_length 0; gzip_proxied any; gzip_types text/event-stream application/json;"
        " client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;"
        " scgi_temp_path scgi; include site.conf; }"
    )
    return ["-p", str(folder), "-c", "nginx.conf"]


def _haproxy(folder: Path, servers: Sequence[Server], ports: tuple[int, int], edit: Callable[[str], str]) -> list[str]:
    bind = f"bind 127.0.0.1:{ports[0]} ssl crt {folder / CERTIFICATE} alpn h2,http/1.1"
    changes = {
        f"bind :443 ssl crt /etc/haproxy/{NAME}.pem alpn h2,http/1.1": f"{bind}\n    bind 127.0.0.1:{ports[1]}",
    }
    text = _with_servers((DEPLOY / "haproxy.cfg").read_text(), servers)
    (folder / "haproxy.cfg").write_text(edit(replaced(text, changes)))
    return ["-db", "-f", "haproxy.cfg"]


def _with_servers(text: str, servers: Sequence[Server]) -> str:
    """Repeat each line that holds the address of the one server for each of these."""
    assert ADDRESS in text, f"{ADDRESS} is not in the file any more"
    lines: list[str] = []
    for line in text.splitlines(keepends=True):
        if ADDRESS not in line:
            lines.append(line)
            continue
        for name, server in zip(SERVER_NAMES, servers, strict=False):
            lines.append(line.replace(SERVER_NAMES[0], name).replace(ADDRESS, f"127.0.0.1:{server.port}"))
    return "".join(lines)


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
