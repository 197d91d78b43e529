"""`gapless send`."""

from __future__ import annotations

import json
import random
import time
import uuid
from typing import Any, Final

import httpx2
import typer

from app.commands.connection import server_url, sign_token
from app.exits import CommandError, Exit

TRY_SECONDS: Final = 10.0
REQUEST_SECONDS: Final = 6.0  # the server answers within 5 s, if with 503
_TRANSIENT: Final = {429, 502, 503, 504}


def run(
    sender: str,
    text: str,
    *,
    recipient: str | None,
    conversation: uuid.UUID | None,
    key: uuid.UUID | None,
    url: str | None,
    token: str | None,
    as_json: bool,
) -> None:
    """Send once, by a key that makes trying again safe."""
    target = {"recipient_id": recipient} if recipient is not None else {"conversation_id": str(conversation)}
    body = {**target, "content": text, "client_message_id": str(key or uuid.uuid4())}
    message = _send(server_url(url), token or sign_token(sender), body)
    if as_json:
        typer.echo(json.dumps(message))
    else:
        typer.echo(f"sent {message['id']} as number {message['seq']} of conversation {message['conversation_id']}")


def _send(url: str, token: str, body: dict[str, str]) -> dict[str, Any]:
    give_up_at = time.monotonic() + TRY_SECONDS
    pause_seconds = 0.2
    with httpx2.Client(base_url=url, timeout=REQUEST_SECONDS, trust_env=False) as client:
        while True:
            try:
                response = client.post("/api/v1/messages/send", json=body, headers={"Authorization": f"Bearer {token}"})
            except httpx2.TransportError as error:
                trouble = f"{url} does not answer ({type(error).__name__})."
            else:
                if response.status_code not in _TRANSIENT:
                    return _message_of(response)
                trouble = f"{url} answers with {response.status_code}."
            if time.monotonic() + pause_seconds > give_up_at:
                tried = (
                    f"Whether it was sent is not known; the same again with --key {body['client_message_id']} is safe."
                )
                raise CommandError(f"{trouble} {tried}", Exit.UNAVAILABLE)
            time.sleep(pause_seconds * random.uniform(0.5, 1))  # noqa: S311 - jitter
            pause_seconds *= 2


def _message_of(response: httpx2.Response) -> dict[str, Any]:
    if response.is_success:
        message: dict[str, Any] = response.json()
        return message
    raise refusal(response)


def refusal(response: httpx2.Response) -> CommandError:
    """Make the error that says what a problem document says (RFC 9457)."""
    try:
        problem = response.json()
        sentence = f"{response.status_code}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        sentence = f"{response.status_code} from {response.request.url}, which may be no Gapless server."
    is_credential = response.status_code == httpx2.codes.UNAUTHORIZED
    return CommandError(sentence, Exit.REFUSED if is_credential else Exit.FAILED)
