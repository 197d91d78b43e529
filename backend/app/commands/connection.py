"""Which server a command talks to, and as whom."""

from __future__ import annotations

import os
from datetime import timedelta
from urllib.parse import urlsplit

from app import development
from app.auth import mint_token
from app.exits import CommandError, Exit
from app.text_rules import is_user_id

DEFAULT_PORT = 8000


def server_url(given: str | None) -> str:
    """Give the server's URL without a slash at the end."""
    if given is not None:
        if urlsplit(given).scheme not in {"http", "https"} or not urlsplit(given).hostname:
            raise CommandError(f"--url takes http://host or https://host, not {given}.", Exit.USAGE)
        return given.rstrip("/")
    port = os.environ.get("PORT")
    running = development.running_server()
    if not port and running is not None:
        return running.url
    return f"http://127.0.0.1:{port or DEFAULT_PORT}"


def sign_token(user_id: str, *, name: str | None = None, lifetime: timedelta = timedelta(hours=12)) -> str:
    """Sign a token as the host app would."""
    if not is_user_id(user_id):
        raise CommandError("A user id is 1 to 128 of A-Z a-z 0-9 . _ : @ | + = -", Exit.USAGE)
    secret = os.environ.get("AUTH_JWT_SECRET") or development.find_secret("auth_jwt_secret")
    if not secret:
        raise CommandError(
            "There is no secret to sign with: set AUTH_JWT_SECRET, or go to the folder where `gapless dev` runs. "
            "With AUTH_JWKS_URL tokens come from your identity provider.",
            Exit.CONFIG,
        )
    return mint_token(
        secret,
        user_id,
        name=name,
        lifetime=lifetime,
        issuer=os.environ.get("AUTH_ISSUER") or None,
        audience=os.environ.get("AUTH_AUDIENCE") or None,
    )
