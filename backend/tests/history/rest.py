"""HTTP calls as users of the host app; an answer that did not come is a status of 0."""

from __future__ import annotations

import asyncio
import random
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Self

import aiohttp
import orjson

from tests.history.records import Call, Listed, Message

PAGE = 100
CALL_SECONDS = 10.0  # a server must answer within 5
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")
NAMED = re.compile(r"(?<=/)(members|reactions)/[^/]+")


class Rest:
    """Calls one of several equal processes, another one each time."""

    def __init__(
        self,
        ports: Sequence[int],
        token_for: Callable[[str], str],
        rng: random.Random,
        note: Callable[[Call, str, Any, Any], None] = lambda *_: None,
    ) -> None:
        """`note` is told of every call: what came of it, its path, its body and its answer."""
        self.ports = list(ports)
        self._note = note
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
        """Call once. Gives the status, 0 where no answer came, and the answer."""
        call, answer = await self.ask(method, path, user, body)
        return call.status, answer

    async def ask(self, method: str, path: str, user: str, body: object = None) -> tuple[Call, Any]:
        """Call once. A broken connection is an answer of the network; only its silence is silence."""
        assert self._session is not None
        invoked_at = time.monotonic()
        url = f"http://127.0.0.1:{self._rng.choice(self.ports)}/api/v1{path}"
        headers = {"Authorization": f"Bearer {self.token(user)}", "Content-Type": "application/json"}
        data = None if body is None else orjson.dumps(body)
        status, answer, is_silent = 0, None, False
        try:
            async with self._session.request(method, url, headers=headers, data=data) as response:
                read = await response.read()
                status = response.status
                answer = orjson.loads(read) if read else None
        except TimeoutError:  # which aiohttp's own, a ClientError as well, is one of
            status, is_silent = 0, True
        except (aiohttp.ClientError, OSError):
            status = 0
        except orjson.JSONDecodeError:  # a proxy's page, or a server's traceback
            status = status if status >= 500 else 0
        found = ID.search(path) if path.startswith("/conversations/") else None
        call = Call(
            route=sys.intern(f"{method} {route_of(path)}"),
            user=user,
            invoked_at=invoked_at,
            ended_at=time.monotonic(),
            status=status,
            is_silent=is_silent,
            conversation_id=sys.intern(found[0]) if found else "",
        )
        self._note(call, path, body, answer)
        return call, answer

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

    async def listed(self, user: str) -> list[Listed]:
        """All conversations of a user, as the checker reads them."""
        return [_listed(item) async for item in self.conversations(user)]

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


def route_of(path: str) -> str:
    """The path without what differs from call to call."""
    return NAMED.sub(r"\1/{}", ID.sub("{}", path.partition("?")[0]))


def _listed(item: dict[str, Any]) -> Listed:
    last = item["last_message"]
    return Listed(
        conversation_id=item["id"],
        last_seq=item["last_seq"],
        rev=item["rev"],
        last_message=None if last is None else Message.from_json(last),
        unread=item["unread"],
        last_read_seq=item["last_read_seq"],
        positions=tuple((member["id"], member["last_read_seq"]) for member in item["members"]),
    )
