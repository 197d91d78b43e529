"""HTTP in, HTTP out: the members of a conversation."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from app.api.body import JsonRoute
from app.api.deps import CurrentUser, ServicesOf
from app.api.json_response import json_response
from app.api.routes.conversations import ConversationId, Limit
from app.schemas import conversations as schemas
from app.schemas.problems import responses
from app.schemas.text import UserId

router = APIRouter(prefix="/conversations/{conversation_id}/members", tags=["members"], route_class=JsonRoute)

MemberId = Annotated[UserId, Path(description="The user's id.")]


@router.get(
    "",
    operation_id="list_members",
    summary="List members",
    response_model=schemas.MembersPage,
    responses=responses(404),
)
async def list_members(
    user: CurrentUser,
    services: ServicesOf,
    *,
    conversation_id: ConversationId,
    limit: Limit = 50,
    after: Annotated[UserId | None, Query(description="The next_cursor of a page.")] = None,
) -> Response:
    """Read the members of a conversation, by id."""
    page = await services.conversations.members.list_members(user.user_id, conversation_id, after=after, limit=limit)
    return json_response(page)


@router.put(
    "/{user_id}",
    operation_id="put_member",
    summary="Add a member, or set a role",
    response_model=schemas.Member,
    responses={
        201: {"model": schemas.Member, "description": "The user was let in."},
        **responses(403, 404, 413, 415),
    },
)
async def put_member(
    user: CurrentUser,
    services: ServicesOf,
    *,
    conversation_id: ConversationId,
    user_id: MemberId,
    body: schemas.PutMember | None = None,
) -> Response:
    """Let a user into a group that you own, or make a member an owner or an owner a member.

    Who joins reads what is sent from then on. A user who is not known is a 404.
    """
    member, is_new = await services.conversations.members.put_member(
        user.user_id, conversation_id, user_id=user_id, role=body.role if body else None
    )
    return json_response(member, status=201 if is_new else 200)


@router.delete(
    "/{user_id}",
    status_code=204,
    operation_id="remove_member",
    summary="Remove a member, or leave",
    responses=responses(403, 404),
)
async def remove_member(
    user: CurrentUser, services: ServicesOf, *, conversation_id: ConversationId, user_id: MemberId
) -> Response:
    """Leave a group, or as an owner remove someone. The last owner hands over to the oldest member."""
    await services.conversations.members.remove_member(user.user_id, conversation_id, user_id=user_id)
    return Response(status_code=204)
