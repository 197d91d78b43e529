"""What `gapless doctor --url` looks at: does a message come through the proxies in front, and at once.

It sends to a group that holds nobody but the user of the check, hidden from the lists of that user.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

import httpx2

from app.commands.checks import Check, Outcome
from app.commands.connection import sign_token
from app.commands.send import refusal
from app.exits import CommandError

USER: Final = "gapless-doctor"  # where no token is given
OPEN_SECONDS: Final = 10.0
ARRIVE_SECONDS: Final = 15.0
PROMPT_SECONDS: Final = 1.0
_GROUP_KEY: Final = uuid.UUID("018f7e57-9a01-7000-8000-646f63746f72")
_BUFFERING: Final = (
    "A proxy in front holds the response back. Switch its buffering and compression off for "
    "/api/v1/messages/stream (nginx: proxy_buffering off; gzip off;)."
)


@dataclass(slots=True)
class _Stream:
    """What was seen on the stream so far."""

    is_connected: asyncio.Event = field(default_factory=asyncio.Event)
    has_message: asyncio.Event = field(default_factory=asyncio.Event)
    key: str = field(default_factory=lambda: str(uuid.uuid4()))


async def check_stream(url: str, token: str | None) -> list[Check]:
    """Open a stream at the public URL, send a message there, and time its arrival."""
    try:
        token = token or sign_token(USER)
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=OPEN_SECONDS, trust_env=False) as client:
            return [check async for check in _check(client)]
    except CommandError as error:
        return [Check("public url", "fail", str(error))]
    except httpx2.TransportError as error:
        return [Check("public url", "fail", f"{url} does not answer: {type(error).__name__} {error}".strip())]


async def _check(client: httpx2.AsyncClient) -> AsyncIterator[Check]:
    me = await _call(client, "GET", "/users/me")
    yield Check("public url", "ok", "It answers, and the token is accepted.")
    group = await _call(
        client, "POST", "/conversations", kind="group", member_ids=[], client_conversation_id=str(_GROUP_KEY)
    )
    seen = _Stream()
    reading = asyncio.create_task(_read(client, str(me["id"]), seen))
    try:
        if not await _within(OPEN_SECONDS, seen.is_connected, reading):
            yield Check("stream", "fail", f"`connected` did not arrive in {OPEN_SECONDS:.0f} s. {_BUFFERING}")
            return
        sent_at = time.monotonic()
        sending = asyncio.create_task(_send(client, str(group["id"]), seen.key))
        has_come = await _within(ARRIVE_SECONDS, seen.has_message, reading)
        seconds = time.monotonic() - sent_at
        await sending
        yield _arrival(seconds if has_come else None)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await _call(client, "PATCH", f"/conversations/{group['id']}/me", hidden=True)


async def _read(client: httpx2.AsyncClient, user_id: str, seen: _Stream) -> None:
    timeout = httpx2.Timeout(OPEN_SECONDS, read=None)
    path = "/api/v1/messages/stream"
    async with client.stream("GET", path, params={"user_id": user_id}, timeout=timeout) as response:
        if not response.is_success:
            await response.aread()
            raise refusal(response)
        async for event in httpx2.EventSource(response):
            if event.event == "connected":
                seen.is_connected.set()
            elif event.event == "new_message" and seen.key in event.data:
                seen.has_message.set()


async def _within(seconds: float, event: asyncio.Event, reading: asyncio.Task[None]) -> bool:
    """Wait for the event; a stream that ends meanwhile says why, or counts as an event that does not come."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait((waiting, reading), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if reading.done():
        reading.result()
    return event.is_set()


async def _send(client: httpx2.AsyncClient, conversation_id: str, key: str) -> None:
    body = {"conversation_id": conversation_id, "content": "gapless doctor", "client_message_id": key}
    await _call(client, "POST", "/messages/send", **body)


async def _call(client: httpx2.AsyncClient, method: str, path: str, **body: object) -> dict[str, object]:
    response = await client.request(method, f"/api/v1{path}", json=body or None)
    if not response.is_success:
        raise refusal(response)
    answer: dict[str, object] = response.json()
    return answer


def _arrival(seconds: float | None) -> Check:
    if seconds is None:
        return Check("stream", "fail", f"A message did not arrive in {ARRIVE_SECONDS:.0f} s. {_BUFFERING}")
    outcome: Outcome = "ok" if seconds <= PROMPT_SECONDS else "warn"
    advice = "" if outcome == "ok" else f" That is late: Redis is down, or: {_BUFFERING}"
    return Check("stream", outcome, f"A message arrived {seconds * 1000:.0f} ms after it was sent.{advice}")
