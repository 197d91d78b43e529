"""Three users with a group and some history, so that the first screen of a development server is not empty.

Through the HTTP API and by fixed keys: the second start finds everything and adds nothing.
"""

from __future__ import annotations

import uuid
from typing import Any, Final

import httpx2

from app.auth import mint_token
from app.settings import Settings

USERS: Final = {"ada": "Ada Lovelace", "bob": "Bob Kahn", "cleo": "Cleo Marsh"}

_KEYS: Final = uuid.UUID("018f7e57-9a01-7000-8000-67615b6c6573")
_GROUP: Final = "Harbour walk"
_IN_GROUP: Final = (
    ("ada", "Saturday looks dry. Shall we walk along the harbour?"),
    ("bob", "I am in. Ten o'clock at the ferry?"),
    ("cleo", "Ten is fine. I bring coffee ☕"),
    ("ada", "Then I bring the cake. See you there!"),
)
_TO_BOB: Final = (
    ("ada", "Did you get the tickets?"),
    ("bob", "Three of them, row 7."),
    ("ada", "Perfect, thank you."),
)


class _RefusedError(Exception):
    """The server said no."""


async def fill_in(url: str, settings: Settings) -> str | None:
    """Make what is missing; say what went wrong, or None.

    What a user of the demo has left, renamed or removed stays so.
    """
    if settings.auth_jwt_secret is None:
        return None
    try:
        async with httpx2.AsyncClient(base_url=url, timeout=10, trust_env=False) as client:
            await _Demo(client, settings).fill_in()
    except _RefusedError as error:
        return str(error)
    except httpx2.TransportError as error:
        return f"{type(error).__name__}."
    return None


class _Demo:
    def __init__(self, client: httpx2.AsyncClient, settings: Settings) -> None:
        self._client = client
        self._settings = settings

    async def fill_in(self) -> None:
        for user_id in USERS:
            await self._call(user_id, "GET", "/users/me")  # who was never seen cannot be written to
        group = await self._call(
            "ada",
            "POST",
            "/conversations",
            kind="group",
            title=_GROUP,
            member_ids=list(USERS),
            client_conversation_id=str(uuid.uuid5(_KEYS, _GROUP)),
        )
        if group is None:
            return
        for number, (sender, content) in enumerate(_IN_GROUP):
            await self._send(sender, number, content=content, conversation_id=group["id"])
        for number, (sender, content) in enumerate(_TO_BOB):
            other = "bob" if sender == "ada" else "ada"
            await self._send(sender, len(_IN_GROUP) + number, content=content, recipient_id=other)

    async def _send(self, sender: str, number: int, **message: str) -> None:
        key = str(uuid.uuid5(_KEYS, str(number)))
        await self._call(sender, "POST", "/messages/send", client_message_id=key, **message)

    async def _call(self, user_id: str, method: str, path: str, **body: object) -> dict[str, Any] | None:
        """Call as a user. None when the user has since left what the call is about."""
        response = await self._client.request(
            method,
            f"/api/v1{path}",
            json=body or None,
            headers={"Authorization": f"Bearer {self._token(user_id)}"},
        )
        if response.status_code in {404, 409}:
            return None
        if response.is_error:
            raise _RefusedError(f"{method} {path} was answered with {response.status_code}.")
        answer: dict[str, Any] = response.json()
        return answer

    def _token(self, user_id: str) -> str:
        secret = self._settings.auth_jwt_secret
        if secret is None:
            raise _RefusedError("There is no AUTH_JWT_SECRET.")
        return mint_token(
            secret.get_secret_value(),
            user_id,
            name=USERS[user_id],
            issuer=self._settings.auth_issuer,
            audience=self._settings.auth_audience,
        )
