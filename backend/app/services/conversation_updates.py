"""What each member is told when a conversation itself has changed: `conversation_updated`.

Its data is one of three, told apart by what they hold:

- the whole Conversation, as the reader sees it;
- `{id, rev}`: something changed that the reader is not told here: it does not concern the reader (in
  groups over 100 members), it is a message from before the reader joined, or the whole would not fit
  into a frame. The client asks `changes`;
- `{id, rev, role: null}`: the reader is no longer a member. The client drops the conversation.

All three are counted changes and carry the rev that the change took. A fourth, `{id, muted_until,
hidden}`, tells a user's own devices of the user's own settings. It is not counted, and carries no
rev on purpose: a client raises its rev by what it is told, and would skip a change still on its way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from app import events
from app.db import changes, conversations

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from app.db.changes import Counted
    from app.db.pool import Connection

_MAX_PAYLOAD_BYTES = events.MAX_FRAME_BYTES - 64  # ":<change>", "event: ", "data: ", the blank line


@dataclass(frozen=True, slots=True)
class Update:
    """Whom to tell of a changed conversation, and what each is told."""

    payloads: Mapping[str, object]
    recipients: Counted


NO_UPDATE = Update({}, ())


async def count_update(
    connection: Connection,
    conversation_id: UUID,
    *,
    rev: int,
    concerned: Sequence[str],
    removed_id: str | None = None,
) -> Update:
    """Count the change that took `rev`, as the last write before the commit.

    `concerned` see all of it in a group of any size; `removed_id` is told, though no longer a member.
    """
    seen = await conversations.as_seen_by(connection, conversation_id, concerned)
    also = [removed_id] if removed_id else []
    recipients = await changes.count_change(connection, conversation_id, also=also)
    short = orjson.Fragment(events.to_json({"id": conversation_id, "rev": rev}))
    payloads: dict[str, object] = {user_id: short for user_id, _ in recipients}
    for user_id, conversation in seen.items():
        encoded = events.to_json(conversation)
        if len(encoded) <= _MAX_PAYLOAD_BYTES:
            payloads[user_id] = orjson.Fragment(encoded)
    if removed_id:
        payloads[removed_id] = {"id": conversation_id, "rev": rev, "role": None}
    return Update(payloads, recipients)
