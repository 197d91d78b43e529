"""The route class of `POST /messages/send`: the same three steps that FastAPI would take, taken directly.

FastAPI describes the route in the OpenAPI document; resolving its dependencies per request would cost
more than committing the message does. Validation is not skipped: it is the same model, and the same
errors come of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError

from app.api.deps import SENDING_USER, services_of
from app.schemas.messages import SendMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fastapi import Request, Response


class SendRoute(APIRoute):
    """Authenticates, validates and calls the endpoint."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Give the handler that Starlette calls."""
        endpoint = self.endpoint

        async def handle(request: Request) -> Response:
            user = await SENDING_USER(request)
            body = _validated(await request.body())
            response: Response = await endpoint(user, services_of(request), body=body)
            return response

        return handle


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
