"""POST /api/v1/messages/send, ahead of FastAPI's stack.

The route is declared in `messages.py`, which describes it in the OpenAPI document. This endpoint takes
the same three steps directly (who, what, do it): FastAPI's way to the same function costs more than
committing the message does. Nothing is skipped: it is the same credential, the same model, the same
service, and the same errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from app.api.deps import SENDING_USER
from app.api.error_handlers import problem_of
from app.api.routes.messages import send_message
from app.errors import GaplessError
from app.schemas.messages import SendMessage

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from app.api.deps import Services


class SendEndpoint:
    """Authenticates, validates, and calls what the route calls."""

    def __init__(self, services: Services) -> None:
        """Send through `services`."""
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; the edge has checked host, size and media type."""
        request = Request(scope, receive)
        try:
            user = await SENDING_USER.identify(request, self._services)
            response = await send_message(user, self._services, body=_validated(await _read(receive)))
        except (GaplessError, RequestValidationError) as error:
            for message in problem_of(error, scope).messages:
                await send(message)
            return
        await response(scope, receive, send)


async def _read(receive: Receive) -> bytes:
    """Take the body, which the edge has read and bounded."""
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body", False):
        message = await receive()
        body += message.get("body", b"")
    return body


def _validated(raw: bytes) -> SendMessage:
    """Read the body. Raises RequestValidationError, in the form that FastAPI gives it."""
    if not raw:
        raise RequestValidationError([{"type": "missing", "loc": ("body",), "msg": "Field required", "input": None}])
    try:
        return SendMessage.model_validate(orjson.loads(raw))
    except orjson.JSONDecodeError as error:
        place = {"type": "json_invalid", "loc": ("body", error.pos), "msg": "JSON decode error", "input": {}}
        raise RequestValidationError([place]) from error
    except ValidationError as error:
        errors = [{**entry, "loc": ("body", *entry["loc"])} for entry in error.errors(include_url=False)]
        raise RequestValidationError(errors) from error
