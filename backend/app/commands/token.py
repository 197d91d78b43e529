"""`gapless token`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import typer

from app.commands.connection import sign_token


def run(user_id: str, *, name: str | None, minutes: int, as_json: bool) -> None:
    """Print the token alone, for `$(gapless token ada)`."""
    lifetime = timedelta(minutes=minutes)
    token = sign_token(user_id, name=name, lifetime=lifetime)
    if as_json:
        expires_at = (datetime.now(UTC) + lifetime).isoformat(timespec="seconds")
        typer.echo(json.dumps({"user_id": user_id, "token": token, "expires_at": expires_at}))
    else:
        typer.echo(token)
