"""`gapless tail`: a client that keeps its place, as every client should.

It connects, prints, and on any end connects again with the cursor of the last message it has printed. So
what it prints has no hole and no message twice, across restarts of the server and losses of the network.
"""

from __future__ import annotations

import json
import random
import sys
import time
from typing import Any, Final

import httpx2
import typer

from app.commands.connection import server_url, sign_token
from app.commands.send import refusal

CONNECT_SECONDS: Final = 10.0
SILENCE_HEARTBEATS: Final = 2.5  # without an event for so many, the connection is dead
FIRST_PAUSE_SECONDS: Final = 0.25
MAX_PAUSE_SECONDS: Final = 10.0


def run(
    user_id: str,
    *,
    url: str | None,
    token: str | None,
    cursor: str | None,
    as_json: bool,
    heartbeats: bool,
) -> None:
    """Print events until Ctrl-C."""
    tail = _Tail(user_id, url=server_url(url), token=token, cursor=cursor, as_json=as_json, heartbeats=heartbeats)
    try:
        tail.run()
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


class _Tail:
    def __init__(
        self, user_id: str, *, url: str, token: str | None, cursor: str | None, as_json: bool, heartbeats: bool
    ) -> None:
        self._user_id = user_id
        self._url = url
        self._token = token
        self._cursor = cursor
        self._as_json = as_json
        self._heartbeats = heartbeats
        self._silence_seconds = 25.0
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._retry_seconds: float | None = None  # what the server asked for, until the next connection
        self._is_told = False

    def run(self) -> None:
        """Connect for ever."""
        while True:
            trouble = self._follow()
            time.sleep(self._next_pause(trouble))

    def _follow(self) -> str | None:
        """Print one stream to its end. Gives why there was none; None after one that was open."""
        self._retry_seconds = None
        # Signed anew each time: a token of ours never runs out.
        headers = {"Authorization": f"Bearer {self._token or sign_token(self._user_id)}"}
        if self._cursor is not None:
            headers["Last-Event-ID"] = self._cursor
        timeout = httpx2.Timeout(CONNECT_SECONDS, read=self._silence_seconds)
        is_open = False
        try:
            with (
                httpx2.Client(base_url=self._url, timeout=timeout, trust_env=False) as client,
                client.stream(
                    "GET", "/api/v1/messages/stream", params={"user_id": self._user_id}, headers=headers
                ) as response,
            ):
                if response.status_code >= httpx2.codes.INTERNAL_SERVER_ERROR:
                    return f"answers with {response.status_code}"
                if not response.is_success:
                    response.read()
                    raise refusal(response)
                for event in httpx2.EventSource(response):
                    self._take(event)
                    is_open = is_open or event.event == "connected"
        except httpx2.TransportError as error:
            return None if is_open else f"does not answer ({type(error).__name__})"
        return None if is_open else "is busy"

    def _take(self, event: httpx2.ServerSentEvent) -> None:
        if event.retry is not None:
            self._retry_seconds = event.retry / 1000
        # A block without data is no event; this parser shows it all the same, with the cursor it carries.
        if event.data:
            data = json.loads(event.data)
            if event.event == "connected":
                self._on_connected(data)
            if event.event != "heartbeat" or self._heartbeats:
                self._print(event, data)
        # After printing: what was not printed is asked for again.
        if event.id:
            self._cursor = event.id

    def _on_connected(self, data: dict[str, Any]) -> None:
        self._silence_seconds = data["heartbeat_seconds"] * SILENCE_HEARTBEATS
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._is_told = False

    def _next_pause(self, trouble: str | None) -> float:
        """Wait as long as the server asked for; longer each time where none answers, each client differently."""
        if self._retry_seconds is not None:
            return self._retry_seconds
        if trouble is not None and not self._is_told:
            self._is_told = True
            typer.echo(f"gapless: {self._url} {trouble}; trying again until it does.", err=True)
        pause_seconds = self._pause_seconds * random.uniform(0.5, 1)  # noqa: S311 - jitter
        self._pause_seconds = min(MAX_PAUSE_SECONDS, self._pause_seconds * 2)
        return pause_seconds

    def _print(self, event: httpx2.ServerSentEvent, data: dict[str, Any]) -> None:
        if self._as_json:
            # The cursor is the message's alone: the parser repeats it on what follows.
            cursor = event.id if event.event == "new_message" else None
            line = json.dumps({"event": event.event, "id": cursor, "data": data})
        else:
            line = f"{time.strftime('%H:%M:%S')} {event.event:<21} {_printable(_summary(event.event, data))}"
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _summary(kind: str, data: dict[str, Any]) -> str:
    match kind:
        case "new_message" | "message_edited":
            sender = data["sender"]
            return f"{sender['name'] or sender['id']}: {data['content']}"
        case "connected":
            how = f"{data['replayed']} missed" if data["recovered"] else "from now on"
            return f"as {data['user_id']}, {how}"
        case "typing_status":
            return f"{data['user_id']} {'types' if data['is_typing'] else 'stopped'}"
        case "read_receipt":
            return f"{data['user_id']} has read up to {data['last_read_seq']}"
        case "resync":
            return f"{data['scope']}: {data['reason']}"
        case _:
            return json.dumps(data)


def _printable(text: str) -> str:
    """Show control characters as escapes: a message must not be able to command the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
