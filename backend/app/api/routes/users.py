"""Profiles, and the host server's word on its users."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.body import JsonRoute
from app.api.deps import CurrentUser, ServerKey, ServicesOf
from app.schemas.problems import responses
from app.schemas.text import UserId
from app.schemas.users import PutUser, User

router = APIRouter(prefix="/users", tags=["users"], route_class=JsonRoute)


@router.get("/me", responses=responses())
async def read_me(caller: CurrentUser, services: ServicesOf) -> User:
    """Read one's own profile."""
    return User.from_person(await services.users.get_profile(caller.user_id, caller.user_id))


@router.get("/{user_id}", responses=responses(404))
async def read_user(user_id: UserId, caller: CurrentUser, services: ServicesOf) -> User:
    """Read the profile of somebody with whom one shares a conversation."""
    return User.from_person(await services.users.get_profile(caller.user_id, user_id))


@router.put("/{user_id}", dependencies=[ServerKey], responses=responses(413, 415))
async def put_user(user_id: UserId, body: PutUser, services: ServicesOf) -> User:
    """Make or replace a user. Only tokens issued later change the profile again."""
    person = await services.users.put_user(user_id, name=body.name, avatar_url=body.avatar_url)
    return User.from_person(person)


@router.post("/{user_id}/revoke", status_code=204, dependencies=[ServerKey], responses=responses(404))
async def revoke_user(user_id: UserId, services: ServicesOf) -> None:
    """End every stream of a user and refuse every token issued until now.

    At once where Redis is up, otherwise within one heartbeat. Give the user a new token a second later:
    `iat` counts whole seconds, so a token of the same second is refused, too.
    """
    await services.users.revoke(user_id)
