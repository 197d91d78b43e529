"""The rules of members: who may let in, promote and remove whom. Direct conversations never change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.db import changes, conversations, members
from app.db.changes import commit
from app.errors import FieldError, ForbiddenError, InvalidRequestError, NotFoundError
from app.services.conversation_updates import NO_UPDATE, Update, count_update
from app.services.pages import Page

if TYPE_CHECKING:
    from uuid import UUID

    from app.db.members import Standing
    from app.db.pool import Connection, Database
    from app.events import Member
    from app.services.messaging.publisher import Publisher


class MembershipService:
    """List, let in, set roles, remove and leave. Raises NotFoundError for whoever is no member."""

    def __init__(self, database: Database, publisher: Publisher, *, max_members: int) -> None:
        """Write to `database`, announce through `publisher`."""
        self._database = database
        self._publisher = publisher
        self._max_members = max_members

    async def list_members(self, user_id: str, conversation_id: UUID, *, after: str | None, limit: int) -> Page[Member]:
        """Read members in the order of their ids, from the one after `after`."""
        found = await members.members_after(
            self._database, user_id, conversation_id, after=after or "", limit=limit + 1
        )
        has_more = len(found) > limit
        page = found[:limit]
        return Page(items=page, next_cursor=page[-1].id if has_more else None, has_more=has_more)

    async def put_member(
        self, owner_id: str, conversation_id: UUID, *, user_id: str, role: str | None
    ) -> tuple[Member, bool]:
        """Let a user in, or set a member's role. Returns the member, and whether this let the user in.

        Without a role a member keeps the one he has and a new one is a plain member. Who comes, or
        comes back, reads what is sent from now on. Raises ForbiddenError to all but owners,
        NotFoundError for a user never seen, InvalidRequestError when the group is full.
        """

        async def put(connection: Connection) -> tuple[Member, bool, Update]:
            standing = await _lock_as_owner(connection, owner_id, conversation_id)
            present = await members.member(connection, conversation_id, user_id)
            if present is None:
                update = await self._add(
                    connection, conversation_id, standing, actor_id=owner_id, user_id=user_id, role=role
                )
            elif role in {None, present.role}:
                return present, False, NO_UPDATE
            else:
                update = await _set_role(connection, conversation_id, standing, actor_id=owner_id, present=present)
            now = await members.member(connection, conversation_id, user_id)
            if now is None:
                raise NotFoundError
            return now, present is None, update

        await members.require_member(self._database, owner_id, conversation_id)
        member, is_new, update = await commit(self._database, put, conversation_id=conversation_id)
        self._publisher.change_per_reader("conversation_updated", update.payloads, recipients=update.recipients)
        return member, is_new

    async def remove_member(self, actor_id: str, conversation_id: UUID, *, user_id: str) -> None:
        """Leave, or as an owner remove someone. The last owner to leave hands over to the oldest member.

        The removed user is told in the same change, and may read nothing of the conversation from
        the commit on. Raises ForbiddenError, and NotFoundError for a user who is not a member.
        """

        async def remove(connection: Connection) -> Update:
            await changes.lock_conversation(connection, actor_id, conversation_id)
            standing = await members.standing(connection, actor_id, conversation_id)
            if standing.kind == "direct":
                raise ForbiddenError("The members of a direct conversation never change.")
            if actor_id != user_id and standing.role != "owner":
                raise ForbiddenError("Only an owner may remove others.")
            if not await members.remove(connection, conversation_id, user_id):
                raise NotFoundError
            promoted = await members.promote_oldest(connection, conversation_id)
            return await count_update(
                connection,
                conversation_id,
                rev=await changes.next_rev(connection, conversation_id),
                concerned=[actor_id, promoted or actor_id],
                removed_id=user_id,
            )

        await members.require_member(self._database, actor_id, conversation_id)
        update = await commit(self._database, remove, conversation_id=conversation_id)
        self._publisher.change_per_reader("conversation_updated", update.payloads, recipients=update.recipients)

    async def _add(
        self,
        connection: Connection,
        conversation_id: UUID,
        standing: Standing,
        *,
        actor_id: str,
        user_id: str,
        role: str | None,
    ) -> Update:
        if await conversations.unknown_users(connection, [user_id]):
            raise NotFoundError("There is no such user.")
        if standing.member_count >= self._max_members:
            raise InvalidRequestError(FieldError("user_id", f"the group is full: it holds {self._max_members} members"))
        await members.add(connection, conversation_id, user_id, role=role or "member")
        return await count_update(
            connection,
            conversation_id,
            rev=await changes.next_rev(connection, conversation_id),
            concerned=[actor_id, user_id],
        )


async def _lock_as_owner(connection: Connection, owner_id: str, conversation_id: UUID) -> Standing:
    await changes.lock_conversation(connection, owner_id, conversation_id)
    standing = await members.standing(connection, owner_id, conversation_id)
    if standing.kind == "direct":
        raise ForbiddenError("The members of a direct conversation never change.")
    if standing.role != "owner":
        raise ForbiddenError("Only an owner may do this.")
    return standing


async def _set_role(
    connection: Connection,
    conversation_id: UUID,
    standing: Standing,
    *,
    actor_id: str,
    present: Member,
) -> Update:
    role = "member" if present.role == "owner" else "owner"
    if role == "member" and standing.owner_count == 1:
        raise ForbiddenError("A group keeps an owner: make someone else one first.")
    await members.set_role(connection, conversation_id, present.id, role=role)
    return await count_update(
        connection,
        conversation_id,
        rev=await changes.next_rev(connection, conversation_id),
        concerned=[actor_id, present.id],
    )
