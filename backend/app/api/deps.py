"""What a route asks for: who is calling, and the services. Wired in main.py, read here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast

from fastapi import Depends, Request, Security
from fastapi.openapi.models import APIKey, APIKeyIn, HTTPBearer
from fastapi.security.base import SecurityBase

from app.auth import Principal, token_of
from app.errors import FieldError, InvalidRequestError, UnauthorizedError
from app.text_rules import is_user_id

if TYPE_CHECKING:
    from app.auth import Authenticator
    from app.db.pool import Database
    from app.services.conversation_service import ConversationService
    from app.services.message_service import MessageService
    from app.services.messaging.publisher import Publisher
    from app.services.user_service import UserService
    from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a route may use; main.py makes one and puts it at `app.state.services`."""

    settings: Settings
    database: Database
    authenticator: Authenticator
    users: UserService
    messages: MessageService
    conversations: ConversationService
    publisher: Publisher
    redis_is_up: Callable[[], bool]
    is_draining: Callable[[], bool]


def services_of(request: Request) -> Services:
    """Give the services of the app that answers `request`."""
    return cast("Services", request.app.state.services)


async def _services(request: Request) -> Services:
    # A coroutine, though it waits for nothing: FastAPI runs plain functions in a thread.
    return services_of(request)


class UserCredential(SecurityBase):
    """A user's bearer token; or the server's key in X-API-Key, acting for the user in X-Act-As.

    One callable, not a chain of dependencies: the send route pays for each of them.
    Raises UnauthorizedError, InvalidRequestError for an X-Act-As that is not a user id,
    UnavailableError when the keys or the user cannot be read.
    """

    def __init__(self, *, for_sending: bool = False) -> None:
        """`for_sending`: leave the check for revocation to `send_batch`, which makes it again anyway."""
        self.model = HTTPBearer(
            bearerFormat="JWT",
            description="A token that your app signed; `sub` is the user. Your app's server may send "
            "`X-API-Key` and `X-Act-As: <user id>` instead.",
        )
        self.scheme_name = "UserToken"
        self._is_for_sending = for_sending

    async def __call__(self, request: Request) -> Principal:
        """Authenticate, and make the user known to the database on first sight."""
        return await self.identify(request, services_of(request))

    async def identify(self, request: Request, services: Services) -> Principal:
        """Do the same where FastAPI has not routed the request."""
        headers = request.headers
        act_as = headers.get("x-act-as")
        if act_as is None:
            principal = await services.authenticator.bearer(token_of(headers.get("authorization")))
        else:
            require_server_key(services, headers.get("x-api-key"))
            if not is_user_id(act_as):
                raise InvalidRequestError(FieldError("X-Act-As", "must be a user id"))
            principal = Principal(act_as)
        request.state.user_id = principal.user_id  # for the access log
        if self._is_for_sending:
            await services.users.recognize_for_send(principal)
        else:
            await services.users.recognize(principal)
        return principal


class ServerCredential(SecurityBase):
    """The key of the host app's server, in X-API-Key. Raises UnauthorizedError."""

    def __init__(self) -> None:
        """Describe the key for the OpenAPI document."""
        self.model = APIKey.model_validate(
            {"in": APIKeyIn.header, "name": "X-API-Key", "description": "SERVER_API_KEY."}
        )
        self.scheme_name = "ServerKey"

    async def __call__(self, request: Request) -> None:
        """Check the key."""
        require_server_key(services_of(request), request.headers.get("x-api-key"))


def require_server_key(services: Services, text: str | None) -> None:
    """Raise UnauthorizedError unless `text` is the server's key."""
    if text is None or not services.authenticator.server_key(text):
        raise UnauthorizedError("A valid server key is required in X-API-Key.")


# A Principal, recognised: known to the database and not revoked.
CurrentUser = Annotated[Principal, Security(UserCredential())]
# The same for the send route alone, without a query for a user that was seen lately.
SENDING_USER = UserCredential(for_sending=True)
SendingUser = Annotated[Principal, Security(SENDING_USER)]
# Use as `dependencies=[ServerKey]` of a route or router.
ServerKey = Security(ServerCredential())
ServicesOf = Annotated[Services, Depends(_services)]
