"""Real server processes for tests: start, ask, stop, kill."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import jwt

JWT_SECRET = "a-secret-of-the-tests-that-is-long-enough"
API_KEY = "a-server-key-of-the-tests-that-is-long-enough"
BACKEND = Path(__file__).parents[2]


def token_for(user_id: str, *, minutes: float = 60, issued_ago_seconds: float = 2, **claims: object) -> str:
    """Sign a token as the host app would."""
    now = time.time()
    payload = {"sub": user_id, "iat": int(now - issued_ago_seconds), "exp": int(now + minutes * 60), **claims}
    return jwt.encode(payload, JWT_SECRET, algorithm="HS256")


def new_user(name: str = "user") -> str:
    """Make up a user id that no other test uses."""
    return f"{name}-{secrets.token_hex(4)}"


@dataclass
class Server:
    """One Gapless process on a port of its own."""

    database_url: str
    redis_url: str
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    port: int = 0
    prefix: Sequence[str] = ()  # a command before its own that ends in `exec`
    process: subprocess.Popen[bytes] | None = None
    session: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def start(self) -> Server:
        """Start the process, on its former port if it had one, and wait until it is ready."""
        environment = {
            **{name: value for name, value in os.environ.items() if name.startswith(("PATH", "LANG", "LD_", "HOME"))},
            "APP_ENV": "production",
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "AUTH_JWT_SECRET": JWT_SECRET,
            "SERVER_API_KEY": API_KEY,
            "HEARTBEAT_SECONDS": "10",
            "PORT": str(self.port),
            "PYTHONPATH": str(BACKEND),
            **self.environment,
        }
        if self.process is not None and self.process.stdout is not None:
            self.process.stdout.close()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, sys.executable, "-m", "tests.support.run_server"],
                cwd=BACKEND,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self.process.stdout is not None
        line = await asyncio.to_thread(self.process.stdout.readline)
        if not line.startswith(b"PORT "):
            raise AssertionError(f"the server did not start:\n{self.log_tail()}")
        self.port = int(line.split()[1])
        if self.session is None:
            self.session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=20), connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=1)
            )
        await self.until_healthy()
        return self

    async def until_healthy(self) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                async with self._session.get(f"{self.url}/health") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            if time.monotonic() > deadline or (self.process and self.process.poll() is not None):
                raise AssertionError(f"the server is not healthy:\n{self.log_tail()}")
            await asyncio.sleep(0.02)

    def log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as a crash would."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    async def terminate(self, within_seconds: float = 20) -> int:
        """Send SIGTERM and give the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.process.wait, within_seconds)

    async def close(self) -> None:
        self.kill()
        if self.process is not None and self.process.stdout is not None:
            self.process.stdout.close()
        if self.session is not None:
            await self.session.close()

    @property
    def _session(self) -> aiohttp.ClientSession:
        assert self.session is not None
        return self.session

    async def call(
        self, method: str, path: str, *, user: str | None = None, headers: dict[str, str] | None = None, **kwargs
    ) -> tuple[int, dict]:
        """Call a route as `user`. Gives the status and the JSON body ({} where there is none)."""
        all_headers = {"Authorization": f"Bearer {token_for(user)}"} if user else {}
        all_headers |= headers or {}
        prefix = "" if path.startswith(("/health", "/ready", "/metrics", "/dev", "/openapi", "/docs")) else "/api/v1"
        async with self._session.request(
            method, f"{self.url}{prefix}{path}", headers=all_headers, **kwargs
        ) as response:
            body = await response.read()
            return response.status, (await response.json(content_type=None)) if body else {}

    async def send(self, sender: str, recipient: str, content: str = "hello", **fields) -> dict:
        """Send a direct message, and give the stored one."""
        body = {"recipient_id": recipient, "content": content, **fields}
        status, message = await self.call("POST", "/messages/send", user=sender, json=body)
        assert status in (200, 201), message
        return message

    async def post(self, sender: str, conversation_id: str, content: str = "hello", **fields) -> dict:
        """Send a message to a conversation, and give the stored one."""
        body = {"conversation_id": conversation_id, "content": content, **fields}
        status, message = await self.call("POST", "/messages/send", user=sender, json=body)
        assert status in (200, 201), message
        return message

    async def group(self, owner: str, *members: str, title: str = "a group") -> str:
        """Create a group of known users, and give its id."""
        body = {"kind": "group", "title": title, "member_ids": list(members)}
        status, conversation = await self.call("POST", "/conversations", user=owner, json=body)
        assert status == 201, conversation
        return conversation["id"]

    async def know(self, *users: str) -> None:
        """Let the server see these users for the first time."""
        for user in users:
            status, body = await self.call("GET", "/users/me", user=user)
            assert status == 200, body
