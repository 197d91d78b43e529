"""The rules of conversations, one entry point per thing a user can do with one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.db import changes, conversations, members, messages
from app.db.changes import commit
from app.errors import ForbiddenError
from app.services import new_conversations
from app.services.conversation_updates import NO_UPDATE, Update, count_update
from app.services.ephemeral_service import EphemeralService
from app.services.membership_service import MembershipService
from app.services.pages import HistoryPage, Page, cursor_of, place_of

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from app.db.changes import Changes
    from app.db.conversations import OwnSettings
    from app.db.pool import Connection, Database
    from app.events import Conversation, Message
    from app.services.messaging.publisher import Publisher
    from app.services.new_conversations import NewConversation
    from app.settings import Settings


class ConversationService:
    """Create, list, read, rename; `members` and `ephemeral` do the rest.

    Whoever is not a member, no longer a member, or asks for what never existed, gets the same
    NotFoundError from every function.
    """

    def __init__(self, database: Database, publisher: Publisher, settings: Settings) -> None:
        """Write to `database`, announce through `publisher`."""
        self._database = database
        self._publisher = publisher
        self._max_members = settings.max_group_members
        self.members = MembershipService(database, publisher, max_members=settings.max_group_members)
        self.ephemeral = EphemeralService(database, publisher)

    async def create_conversation(self, creator_id: str, new: NewConversation) -> tuple[Conversation, bool]:
        """Create a conversation, or find what this would make twice. Returns it, and whether it is new.

        Two users have one direct conversation. A group is known by its creator's key, for ever:
        raises IdempotencyConflictError for a different request under the same key, NotFoundError if
        the creator has left it since, InvalidRequestError for members that cannot be.
        """
        new_conversations.check(creator_id, new, max_members=self._max_members)

        async def create(connection: Connection) -> tuple[Conversation, bool, Update]:
            opened = await new_conversations.find_or_create(connection, creator_id, new)
            seen = await conversations.conversation(connection, creator_id, opened.conversation_id)
            return seen, opened.is_new, opened.update

        conversation, is_new, update = await commit(self._database, create)
        self._publisher.change_per_reader("conversation_updated", update.payloads, recipients=update.recipients)
        return conversation, is_new

    async def list_conversations(
        self, user_id: str, *, hidden: bool, before: str | None, limit: int
    ) -> Page[Conversation]:
        """Read the conversations that are hidden, or those that are not, the newest first."""
        place = None if before is None else place_of(before)
        listed = await conversations.conversations_of(self._database, user_id, hidden=hidden, before=place, limit=limit)
        cursor = None if listed.next_place is None else cursor_of(listed.next_place)
        return Page(items=listed.items, next_cursor=cursor, has_more=cursor is not None)

    async def get_conversation(self, user_id: str, conversation_id: UUID) -> Conversation:
        """Read one conversation."""
        return await conversations.conversation(self._database, user_id, conversation_id)

    async def rename(self, user_id: str, conversation_id: UUID, *, title: str | None) -> Conversation:
        """Set or clear the title of a group. Raises ForbiddenError to all but its owners."""

        async def set_title(connection: Connection) -> tuple[Conversation, Update]:
            await changes.lock_conversation(connection, user_id, conversation_id)
            standing = await members.standing(connection, user_id, conversation_id)
            if standing.kind == "direct":
                raise ForbiddenError("A direct conversation has no title.")
            if standing.role != "owner":
                raise ForbiddenError("Only an owner may rename a group.")
            update = NO_UPDATE
            if standing.title != title:
                rev = await conversations.set_title(connection, conversation_id, title)
                update = await count_update(connection, conversation_id, rev=rev, concerned=[user_id])
            seen = await conversations.conversation(connection, user_id, conversation_id)
            return seen, update

        await members.require_member(self._database, user_id, conversation_id)
        conversation, update = await commit(self._database, set_title, conversation_id=conversation_id)
        self._publisher.change_per_reader("conversation_updated", update.payloads, recipients=update.recipients)
        return conversation

    async def change_own_settings(
        self,
        user_id: str,
        conversation_id: UUID,
        *,
        muted_until: tuple[datetime | None] | None = None,
        hidden: bool | None = None,
    ) -> Conversation:
        """Mute, unmute, hide, show: what is None stays. Told to the user's own devices alone."""

        async def set_them(connection: Connection) -> OwnSettings | None:
            return await conversations.set_own_settings(
                connection, user_id, conversation_id, muted_until=muted_until, hidden=hidden
            )

        await members.require_member(self._database, user_id, conversation_id)
        changed = await commit(self._database, set_them, conversation_id=conversation_id)
        if changed is not None:
            self._publisher.ephemeral("conversation_updated", changed, user_ids=[user_id])
        return await conversations.conversation(self._database, user_id, conversation_id)

    async def list_messages(
        self,
        user_id: str,
        conversation_id: UUID,
        *,
        before: int | None,
        after: int | None,
        limit: int,
    ) -> HistoryPage[Message]:
        """Read a page of messages, ascending: below `before`, above `after`, or the newest.

        `next_cursor` goes on in the same direction.
        """
        history = await messages.history(
            self._database, user_id, conversation_id, before=before, after=after, limit=limit
        )
        edge = history.items[-1 if after is not None else 0].seq if history.has_more else None
        return HistoryPage(
            items=history.items,
            next_cursor=None if edge is None else str(edge),
            has_more=history.has_more,
            rev=history.rev,
        )

    async def list_changes(self, user_id: str, conversation_id: UUID, *, after_rev: int, limit: int) -> Changes:
        """Read the latest state of everything that changed after a rev."""
        return await changes.changes_after(self._database, user_id, conversation_id, after_rev=after_rev, limit=limit)
