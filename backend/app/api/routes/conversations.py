"""HTTP in, HTTP out: conversations, their messages and changes."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response

from app.api.body import JsonRoute
from app.api.deps import CurrentUser, ServicesOf
from app.api.json_response import json_response
from app.errors import FieldError, InvalidRequestError
from app.schemas import conversations as schemas
from app.schemas.messages import HistoryPage
from app.schemas.problems import responses
from app.schemas.text import ChangesLimit, Id, PageLimit, QuerySeq
from app.services.new_conversations import NewConversation

router = APIRouter(prefix="/conversations", tags=["conversations"], route_class=JsonRoute)

ConversationId = Annotated[Id, Path(description="The conversation's id.")]
Limit = Annotated[PageLimit, Query(description="How many at most.")]
SeqQuery = Annotated[QuerySeq | None, Query(description="A seq of the conversation, exclusive.")]


@router.post(
    "",
    status_code=201,
    operation_id="create_conversation",
    summary="Create a conversation",
    response_model=schemas.Conversation,
    responses={
        200: {"model": schemas.Conversation, "description": "It was there: by its key, or its two users."},
        **responses(404, 409, 413, 415),
    },
)
async def create_conversation(user: CurrentUser, services: ServicesOf, *, body: schemas.CreateConversation) -> Response:
    """Make a group that you own, or open the direct conversation with another user.

    A user who is not known is a 422 that names the place in `member_ids`. A repeated key of a group
    that you have left is a 404.
    """
    new = NewConversation(
        kind=body.kind,
        member_ids=body.member_ids,
        title=body.title,
        client_conversation_id=body.client_conversation_id,
    )
    made, is_new = await services.conversations.create_conversation(user.user_id, new)
    return json_response(made, status=201 if is_new else 200)


@router.get(
    "",
    operation_id="list_conversations",
    summary="List your conversations",
    response_model=schemas.ConversationsPage,
    responses=responses(),
)
async def list_conversations(
    user: CurrentUser,
    services: ServicesOf,
    *,
    limit: Limit = 50,
    before: Annotated[str | None, Query(max_length=64, description="The next_cursor of a page.")] = None,
    hidden: Annotated[Literal["true", "false"], Query(description="The hidden ones instead of the others.")] = "false",
) -> Response:
    """Read your conversations, the most recently active first."""
    page = await services.conversations.list_conversations(
        user.user_id, hidden=hidden == "true", before=before, limit=limit
    )
    return json_response(page)


@router.get(
    "/{conversation_id}",
    operation_id="get_conversation",
    summary="Read a conversation",
    response_model=schemas.Conversation,
    responses=responses(404),
)
async def get_conversation(user: CurrentUser, services: ServicesOf, *, conversation_id: ConversationId) -> Response:
    """Read a conversation as you see it."""
    found = await services.conversations.get_conversation(user.user_id, conversation_id)
    return json_response(found)


@router.patch(
    "/{conversation_id}",
    operation_id="rename_conversation",
    summary="Rename a group",
    response_model=schemas.Conversation,
    responses=responses(403, 404, 413, 415),
)
async def rename_conversation(
    user: CurrentUser,
    services: ServicesOf,
    *,
    conversation_id: ConversationId,
    body: schemas.RenameConversation,
) -> Response:
    """Set or remove the title of a group that you own."""
    renamed = await services.conversations.rename(user.user_id, conversation_id, title=body.title)
    return json_response(renamed)


@router.patch(
    "/{conversation_id}/me",
    operation_id="change_own_settings",
    summary="Mute or hide a conversation",
    response_model=schemas.Conversation,
    responses=responses(404, 413, 415),
)
async def change_own_settings(
    user: CurrentUser,
    services: ServicesOf,
    *,
    conversation_id: ConversationId,
    body: schemas.ChangeOwnSettings,
) -> Response:
    """Change how you see a conversation. Only your own devices are told."""
    given = body.model_fields_set
    changed = await services.conversations.change_own_settings(
        user.user_id,
        conversation_id,
        muted_until=(body.muted_until,) if "muted_until" in given else None,
        hidden=body.hidden if "hidden" in given else None,
    )
    return json_response(changed)


@router.get(
    "/{conversation_id}/messages",
    operation_id="list_messages",
    summary="Read messages of a conversation",
    response_model=HistoryPage,
    responses=responses(404),
)
async def list_messages(
    user: CurrentUser,
    services: ServicesOf,
    *,
    conversation_id: ConversationId,
    limit: Limit = 50,
    before: SeqQuery = None,
    after: SeqQuery = None,
) -> Response:
    """Read the newest messages, or those next to `before` or `after`; ascending in any case."""
    if before is not None and after is not None:
        raise InvalidRequestError(FieldError("after", "goes without before"))
    page = await services.conversations.list_messages(
        user.user_id, conversation_id, before=before, after=after, limit=limit
    )
    return json_response(page)


@router.get(
    "/{conversation_id}/changes",
    operation_id="list_changes",
    summary="Read what changed in a conversation",
    response_model=schemas.Changes,
    responses=responses(404),
)
async def list_changes(
    user: CurrentUser,
    services: ServicesOf,
    *,
    conversation_id: ConversationId,
    after_rev: Annotated[QuerySeq, Query(description="The rev of your copy.")],
    limit: Annotated[ChangesLimit, Query(description="How many messages at most.")] = 50,
) -> Response:
    """Bring a copy of a conversation up to date: the latest state of everything stamped after a rev."""
    changes = await services.conversations.list_changes(user.user_id, conversation_id, after_rev=after_rev, limit=limit)
    return json_response(changes)


@router.post(
    "/{conversation_id}/read",
    operation_id="mark_read",
    summary="Move your read position",
    response_model=schemas.ReadState,
    responses=responses(404, 413, 415),
)
async def mark_read(
    user: CurrentUser, services: ServicesOf, *, conversation_id: ConversationId, body: schemas.MarkRead
) -> Response:
    """Say up to where you have read. It never moves back, nor past the newest message."""
    state = await services.conversations.ephemeral.mark_read(user.user_id, conversation_id, seq=body.seq)
    return json_response(state)


@router.post(
    "/{conversation_id}/typing",
    status_code=204,
    operation_id="set_typing",
    summary="Say that you are typing",
    responses=responses(404, 413, 415),
)
async def set_typing(
    user: CurrentUser, services: ServicesOf, *, conversation_id: ConversationId, body: schemas.SetTyping
) -> Response:
    """Tell the other members, once in 2 s at most; in groups over 100 members nobody is told."""
    await services.conversations.ephemeral.set_typing(user.user_id, conversation_id, is_typing=body.is_typing)
    return Response(status_code=204)
