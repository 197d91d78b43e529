"""What opens a stream where no header can be set: a cookie for EventSource, a ticket for other sites.

All three take a bearer token and ignore the cookie, which the browser sends along: a page of a sibling
domain must not be able to renew it or to make a ticket of it. DELETE, too: it clears the cookie of the
token's user and no other. Whose token has expired need not call it, for the cookie ended with the token.
"""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response

from app.api.body import JsonRoute
from app.api.deps import CurrentUser, ServicesOf
from app.auth import cookie_name
from app.origins import is_loopback_host
from app.schemas.problems import responses
from app.schemas.users import StreamSession, StreamTicket

COOKIE_PATH = "/api/v1/messages/stream"

router = APIRouter(prefix="/messages/stream", tags=["stream"], route_class=JsonRoute)


@router.post("/session", responses=responses())
async def open_session(
    caller: CurrentUser, services: ServicesOf, request: Request, response: Response
) -> StreamSession:
    """Set the cookie that opens the caller's stream, for as long as the token is good, at most 24 h."""
    value, expires_at = services.authenticator.sign_cookie(caller)
    seconds = max(0, int((expires_at - datetime.now(UTC)).total_seconds()))
    cookie = f"{cookie_name(caller.user_id)}={value}; Max-Age={seconds}; {_attributes(request, services)}"
    response.headers.append("Set-Cookie", cookie)
    return StreamSession(user_id=caller.user_id, expires_at=expires_at)


@router.delete("/session", status_code=204, responses=responses())
async def close_session(caller: CurrentUser, services: ServicesOf, request: Request, response: Response) -> None:
    """Clear the caller's cookie. Streams that are open stay open: end them by closing them."""
    cookie = f"{cookie_name(caller.user_id)}=; Max-Age=0; {_attributes(request, services)}"
    response.headers.append("Set-Cookie", cookie)


@router.post("/ticket", responses=responses())
async def make_ticket(caller: CurrentUser, services: ServicesOf) -> StreamTicket:
    """Make a ticket for `?ticket=`. It is in a URL for a moment, so it lives for 30 s and opens a stream only."""
    ticket, expires_at = services.authenticator.sign_ticket(caller)
    return StreamTicket(ticket=ticket, expires_at=expires_at)


def _attributes(request: Request, services: ServicesOf) -> str:
    """Give the attributes, the same for setting and clearing: another partition is another cookie."""
    common = f"Path={COOKIE_PATH}; HttpOnly"
    if services.settings.stream_cookie_samesite == "none":
        return f"{common}; SameSite=None; Secure; Partitioned"
    # Not every browser keeps a Secure cookie of http://localhost.
    is_local = request.url.scheme == "http" and is_loopback_host(request.headers.get("host"))
    return f"{common}; SameSite=Lax" if is_local else f"{common}; SameSite=Lax; Secure"
