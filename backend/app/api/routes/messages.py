"""HTTP in, HTTP out: messages."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from app.api.body import JsonRoute
from app.api.deps import CurrentUser, SendingUser, ServicesOf
from app.api.json_response import json_response
from app.schemas import messages as schemas
from app.schemas.problems import responses
from app.schemas.text import Emoji, Id
from app.services.message_service import NewMessage

router = APIRouter(prefix="/messages", tags=["messages"], route_class=JsonRoute)

MessageId = Annotated[Id, Path(description="The message's id.")]
EmojiInPath = Annotated[Emoji, Path(description="One emoji, percent-encoded.")]


@router.post(
    "/send",
    status_code=201,
    operation_id="send_message",
    summary="Send a message",
    response_description="The message; it is committed.",
    response_model=schemas.Message,
    responses={
        200: {"model": schemas.Message, "description": "The key was used before: what it sent, as it now is."},
        **responses(404, 409, 413, 415),
    },
)
async def send_message(user: SendingUser, services: ServicesOf, *, body: schemas.SendMessage) -> Response:
    """Commit a message and tell every open client of every member.

    Repeat a request that failed or was never answered with the same `client_message_id`: the message
    is sent once.
    """
    new = NewMessage(
        content=body.content,
        conversation_id=body.conversation_id,
        recipient_id=body.recipient_id,
        client_message_id=body.client_message_id,
        reply_to_id=body.reply_to_id,
    )
    message, is_new = await services.messages.send_message(user, new)
    return json_response(message, status=201 if is_new else 200)


@router.get(
    "/{message_id}",
    operation_id="get_message",
    summary="Read a message",
    response_model=schemas.Message,
    responses=responses(404),
)
async def get_message(user: CurrentUser, services: ServicesOf, *, message_id: MessageId) -> Response:
    """Read a message of a conversation you are in, sent since you joined."""
    return json_response(await services.messages.get_message(user.user_id, message_id))


@router.patch(
    "/{message_id}",
    operation_id="edit_message",
    summary="Edit a message",
    response_model=schemas.Message,
    responses=responses(403, 404, 413, 415),
)
async def edit_message(
    user: CurrentUser, services: ServicesOf, *, message_id: MessageId, body: schemas.EditMessage
) -> Response:
    """Change what your own message says. Members are told by `message_edited`."""
    edited = await services.messages.edit_message(user.user_id, message_id, content=body.content)
    return json_response(edited)


@router.delete(
    "/{message_id}",
    status_code=204,
    operation_id="delete_message",
    summary="Delete a message",
    responses=responses(403, 404),
)
async def delete_message(user: CurrentUser, services: ServicesOf, *, message_id: MessageId) -> Response:
    """Erase your own message, or as an owner of the group anyone's. Its place stays, empty."""
    await services.messages.delete_message(user.user_id, message_id)
    return Response(status_code=204)


@router.put(
    "/{message_id}/reactions/{emoji}",
    status_code=204,
    operation_id="put_reaction",
    summary="React to a message",
    responses=responses(403, 404),
)
async def put_reaction(
    user: CurrentUser, services: ServicesOf, *, message_id: MessageId, emoji: EmojiInPath
) -> Response:
    """Give a message an emoji. A message carries at most 20 different ones."""
    await services.messages.put_reaction(user.user_id, message_id, emoji=emoji)
    return Response(status_code=204)


@router.delete(
    "/{message_id}/reactions/{emoji}",
    status_code=204,
    operation_id="delete_reaction",
    summary="Take a reaction back",
    responses=responses(404),
)
async def delete_reaction(
    user: CurrentUser, services: ServicesOf, *, message_id: MessageId, emoji: EmojiInPath
) -> Response:
    """Take back an emoji you gave."""
    await services.messages.delete_reaction(user.user_id, message_id, emoji=emoji)
    return Response(status_code=204)
