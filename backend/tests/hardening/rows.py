"""One row per route of the OpenAPI document: a request that is valid, from which the tests make invalid ones."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from tests.hardening.raw import Answer, Raw, request
from tests.support.servers import API_KEY, Server, new_user, token_for

PREFIX = "/api/v1"
CANARY = "c4n4ry"
AT_ONCE = 16


@dataclass(frozen=True)
class Row:
    """How to call a route validly. `{group}` and the like are filled in from a `Scene`."""

    body: dict[str, Any] | None = None
    query: str = ""
    caller: str = "user"  # or "server", or "anybody"
    is_members_only: bool = False  # a stranger gets the same 404 as for an id that does not exist
    may_lack_body: bool = False


KEY = str(uuid4())
MEMBERS_ONLY = Row(is_members_only=True)

ROWS: dict[str, Row] = {
    "GET /health": Row(caller="anybody"),
    "GET /ready": Row(caller="anybody"),
    "GET /dev/users": Row(caller="anybody"),
    "POST /dev/token": Row({"user_id": "dev-user", "name": "Dev"}, caller="anybody"),
    "POST /conversations": Row(
        {"kind": "group", "title": "t", "member_ids": ["{bob}"], "client_conversation_id": KEY},
    ),
    "GET /conversations": Row(query="limit=2&hidden=false"),
    "GET /conversations/{conversation_id}": MEMBERS_ONLY,
    "PATCH /conversations/{conversation_id}": Row({"title": "t"}, is_members_only=True),
    "GET /conversations/{conversation_id}/changes": Row(query="after_rev=0&limit=2", is_members_only=True),
    "PATCH /conversations/{conversation_id}/me": Row(
        {"muted_until": "2027-01-01T00:00:00Z", "hidden": False}, is_members_only=True
    ),
    "GET /conversations/{conversation_id}/members": Row(query="limit=2", is_members_only=True),
    "PUT /conversations/{conversation_id}/members/{user_id}": Row(
        {"role": "member"}, is_members_only=True, may_lack_body=True
    ),
    "DELETE /conversations/{conversation_id}/members/{user_id}": MEMBERS_ONLY,
    "GET /conversations/{conversation_id}/messages": Row(query="limit=2", is_members_only=True),
    "POST /conversations/{conversation_id}/read": Row({"seq": 1}, is_members_only=True),
    "POST /conversations/{conversation_id}/typing": Row({"is_typing": True}, is_members_only=True),
    "POST /messages/send": Row(
        {"conversation_id": "{group}", "content": "hello", "client_message_id": KEY, "reply_to_id": "{message}"}
    ),
    "GET /messages/stream": Row(query="user_id={ada}&last_event_id=zz.1"),
    "POST /messages/stream/session": Row(),
    "DELETE /messages/stream/session": Row(),
    "POST /messages/stream/ticket": Row(),
    "GET /messages/{message_id}": MEMBERS_ONLY,
    "PATCH /messages/{message_id}": Row({"content": "edited"}, is_members_only=True),
    "DELETE /messages/{message_id}": MEMBERS_ONLY,
    "PUT /messages/{message_id}/reactions/{emoji}": MEMBERS_ONLY,
    "DELETE /messages/{message_id}/reactions/{emoji}": MEMBERS_ONLY,
    "GET /users/me": Row(),
    "GET /users/{user_id}": Row(is_members_only=True),
    "PUT /users/{user_id}": Row({"name": "Ada", "avatar_url": "https://example.com/a.png"}, caller="server"),
    "POST /users/{user_id}/revoke": Row(caller="server"),
}


@dataclass
class Scene:
    """A group of ada (owner) and bob, which exe has left; eve is a stranger to all of them."""

    server: Server
    document: dict[str, Any]
    names: dict[str, str]

    @classmethod
    async def set_up(cls, server: Server) -> Scene:
        names = {name: new_user(name) for name in ("ada", "bob", "exe", "eve")}
        await server.know(*names.values())
        group = await server.group(names["ada"], names["bob"], names["exe"])
        message = await server.post(names["ada"], group, "for members only")
        status, _ = await server.call("DELETE", f"/conversations/{group}/members/{names['exe']}", user=names["exe"])
        assert status == 204
        _, document = await server.call("GET", "/openapi.json")
        return cls(server, document, {**names, "group": group, "message": message["id"]})

    def operations(self) -> dict[str, dict[str, Any]]:
        """Give the operations of the document by `METHOD /path`, without the prefix."""
        return {
            f"{method.upper()} {path.removeprefix(PREFIX)}": operation
            for path, methods in self.document["paths"].items()
            for method, operation in methods.items()
        }

    def parameters(self, name: str) -> dict[str, str]:
        """Fill in the parameters of a path validly."""
        values = {
            "conversation_id": self.names["group"],
            "message_id": self.names["message"],
            "emoji": "%F0%9F%91%8D",
            "user_id": self.names["bob"],
        }
        return {key: value for key, value in values.items() if "{" + key + "}" in name}

    def body(self, row: Row) -> bytes:
        text = json.dumps(row.body)
        for key, value in self.names.items():
            text = text.replace("{" + key + "}", value)
        return text.encode() if row.body is not None else b""

    def credentials(self, row: Row, user: str = "ada") -> list[str]:
        if row.caller == "server":
            return [f"X-API-Key: {API_KEY}"]
        return [f"Authorization: Bearer {token_for(self.names[user])}"] if row.caller == "user" else []

    async def ask(
        self,
        name: str,
        *,
        user: str = "ada",
        path: dict[str, str] | None = None,
        query: str | None = None,
        body: bytes | None = None,
        headers: list[str] | None = None,
        content_type: str | None = "application/json",
    ) -> Answer:
        """Call the route of a row, changed in one place."""
        row, (method, template) = ROWS[name], name.split(" ")
        target = template if template.startswith(("/health", "/ready", "/dev")) else PREFIX + template
        for key, value in (self.parameters(name) | (path or {})).items():
            target = target.replace("{" + key + "}", value)
        query = row.query if query is None else query
        for key in ("ada", "bob"):
            query = query.replace("{" + key + "}", self.names[key])
        lines = self.credentials(row, user) if headers is None else list(headers)
        sent = self.body(row) if body is None else body
        if sent and content_type is not None:
            lines.append(f"Content-Type: {content_type}")
        return await self.say(request(method, f"{target}?{query}" if query else target, *lines, body=sent))

    async def say(self, text: bytes) -> Answer:
        raw = await Raw.to(self.server, text)
        try:
            return await raw.answer(20)
        finally:
            raw.reset()


def faults_of(answer: Answer, documented: set[str]) -> list[str]:
    """Say what is wrong with a refusal: all of them look the same, and none repeats what was sent."""
    faults = []
    text = answer.body.decode("utf-8", "replace")
    if answer.status >= 500:
        faults.append(f"{answer.status}")
    in_body = answer.status >= 400 and CANARY in text  # a message that was accepted is given back
    if in_body or CANARY in " ".join(answer.headers.values()) or "x-canary" in answer.headers:
        faults.append(f"echo: {text[:200]}")
    if answer.status < 400:
        return faults
    if answer.headers.get("content-type") != "application/problem+json":
        return [*faults, f"{answer.status} {answer.headers.get('content-type')}: {text[:100]}"]
    problem = answer.json
    if problem["status"] != answer.status or not problem["code"] or not problem["title"] or not problem["detail"]:
        faults.append(f"problem: {text[:200]}")
    if not problem["request_id"] or problem["request_id"] != answer.headers.get("x-request-id"):
        faults.append("request_id")
    if documented and str(answer.status) not in documented | {"404"}:  # a path may miss every route
        faults.append(f"{answer.status} is not documented")
    return faults


class Complaints:
    """Collects what is wrong with many requests, so that one run shows all of it."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.asked = 0
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def check(self, scene: Scene, name: str, what: str, *, allowed: set[int] | None = None, **changes) -> None:
        """Ask, and complain about the answer unless its status is one of `allowed`, or any below 500."""
        async with self._at_once:
            try:
                answer = await scene.ask(name, **changes)
            except (ConnectionError, asyncio.IncompleteReadError, TimeoutError) as error:
                self.found.append(f"{name}, {what[:80]}: {type(error).__name__}")
                return
        self.asked += 1
        faults = faults_of(answer, set(scene.operations()[name]["responses"]))
        if allowed is not None and answer.status not in allowed:
            faults.append(f"{answer.status} {answer.body[:150]!r}")
        self.found += [f"{name}, {what[:80]}: {fault}" for fault in faults]
