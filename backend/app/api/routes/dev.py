"""Tokens for the asking, on a development server only.

Whoever can call this is everybody. So it exists only in development on a loopback bind (main.py asks
`is_offered`), and answers only a loopback client that means this machine (a loopback Host: a name that
an attacker's DNS points here is none) and is no page of another origin. Anything else is a 404.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from fastapi import APIRouter, Depends, Request

from app.api.body import JsonRoute
from app.api.deps import ServicesOf
from app.auth import mint_token
from app.errors import NotFoundError
from app.origins import is_loopback_address, is_loopback_host, is_own_origin
from app.schemas.problems import responses
from app.schemas.users import DevToken, DevTokenRequest, DevUsers, User
from app.settings import Settings

TOKEN_LIFETIME = timedelta(hours=12)


def is_offered(settings: Settings) -> bool:
    """Whether main.py mounts these routes at all."""
    is_loopback = is_loopback_host(settings.host) or is_loopback_address(settings.host)  # ::1
    return is_loopback and not settings.is_production


async def require_local_page(request: Request) -> None:
    """Raise NotFoundError unless it is this machine that asks, for itself."""
    hosts = request.headers.getlist("host")
    client = request.client.host if request.client else ""
    origins = request.headers.getlist("origin")
    if (
        len(hosts) != 1
        or not is_loopback_host(hosts[0])
        or not is_loopback_address(client)
        or request.headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}
        or not all(is_own_origin(o, host=hosts[0], scheme=request.url.scheme) for o in origins)
    ):
        raise NotFoundError


router = APIRouter(
    prefix="/dev",
    tags=["development"],
    route_class=JsonRoute,
    dependencies=[Depends(require_local_page)],
)


@router.get("/users", responses=responses(404))
async def list_users(services: ServicesOf) -> DevUsers:
    """List the first 100 users."""
    people = await services.users.list_profiles(limit=100)
    return DevUsers(items=[User.from_person(person) for person in people])


@router.post("/token", responses=responses(404, 413, 415))
async def make_token(body: DevTokenRequest, services: ServicesOf) -> DevToken:
    """Make a token for anybody, who from now on can be written to."""
    settings = services.settings
    if settings.auth_jwt_secret is None:
        raise NotFoundError("Tokens come from AUTH_JWKS_URL on this server.")
    token = mint_token(
        settings.auth_jwt_secret.get_secret_value(),
        body.user_id,
        name=body.name,
        lifetime=TOKEN_LIFETIME,
        issuer=settings.auth_issuer,
        audience=settings.auth_audience,
    )
    principal = await services.authenticator.bearer(token)
    await services.users.recognize(principal)
    return DevToken(token=token, expires_at=principal.expires_at or datetime.now(UTC))
