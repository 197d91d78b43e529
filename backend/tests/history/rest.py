"""HTTP calls as users of the host app; an answer that did not come is a status of 0."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Self

import aiohttp
import orjson

from tests.history.records import Message

PAGE = 100
CALL_SECONDS = 10.0  # a server must answer within 5


class Rest:
    """Calls one of several equal processes, another one each time."""

    def __init__(self, ports: Sequence[int], token_for: Callable[[str], str], rng: random.Random) -> None:
        self.ports = list(ports)
        self._token_for = token_for
        self._rng = rng
        self._tokens: dict[str, str] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=CALL_SECONDS))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()

    def token(self, user: str) -> str:
        """The user's token, good for longer than any run."""
        if user not in self._tokens:
            self._tokens[user] = self._token_for(user)
        return self._tokens[user]

    async def call(self, method: str, path: str, user: str, body: object = None) -> tuple[int, Any]:
        """Call once."""
        assert self._session is not None
        url = f"http://127.0.0.1:{self._rng.choice(self.ports)}/api/v1{path}"
        headers = {"Authorization": f"Bearer {self.token(user)}", "Content-Type": "application/json"}
        data = None if body is None else orjson.dumps(body)
        try:
            async with self._session.request(method, url, headers=headers, data=data) as response:
                answer = await response.read()
                return response.status, orjson.loads(answer) if answer else None
        except (aiohttp.ClientError, OSError, TimeoutError, orjson.JSONDecodeError):
            return 0, None

    async def insist(
        self, method: str, path: str, user: str, body: object = None, *, within_seconds: float = 30
    ) -> tuple[int, Any]:
        """Repeat an idempotent call until it is answered by anything but 429, 5xx or silence."""
        deadline, pause = time.monotonic() + within_seconds, 0.05
        while True:
            status, answer = await self.call(method, path, user, body)
            if status and status < 500 and status != 429:
                return status, answer
            if time.monotonic() > deadline:
                raise AssertionError(f"{method} {path}: {status} for {within_seconds} s: {answer}")
            await asyncio.sleep(self._rng.uniform(pause / 2, pause))
            pause = min(pause * 2, 1)

    async def conversations(self, user: str) -> AsyncIterator[dict[str, Any]]:
        """All conversations of a user."""
        before = ""
        while True:
            status, page = await self.insist("GET", f"/conversations?limit={PAGE}{before}", user)
            assert status == 200, page
            for item in page["items"]:
                yield item
            if not page["has_more"]:
                return
            before = f"&before={page['next_cursor']}"

    async def messages(self, user: str, conversation_id: str) -> AsyncIterator[Message]:
        """The whole conversation as this member sees it, oldest first."""
        after = 0
        while True:
            path = f"/conversations/{conversation_id}/messages?after={after}&limit={PAGE}"
            status, page = await self.insist("GET", path, user)
            assert status == 200, page
            for item in page["items"]:
                yield Message.from_json(item)
                after = item["seq"]
            if not page["has_more"]:
                return
