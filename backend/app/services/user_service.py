"""The rules of users: they come from the host app, by token or by its server, and are never made up here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.db import users
from app.db.changes import commit_small
from app.errors import NotFoundError, UnauthorizedError
from app.events import Person
from app.lru import ExpiringLru

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from app.auth import Principal
    from app.db.pool import Connection, Database
    from app.services.messaging.publisher import Publisher

KNOWN_USERS = 100_000
KNOWN_SECONDS = 300


class UserService:
    """Recognise who calls, and keep profiles."""

    def __init__(self, database: Database, publisher: Publisher) -> None:
        """Write to `database`, announce through `publisher`."""
        self._database = database
        self._publisher = publisher
        self._reader = users.UserReader(database)
        self._known: ExpiringLru[str, Principal] = ExpiringLru(KNOWN_USERS, seconds=KNOWN_SECONDS)

    async def recognize(self, principal: Principal) -> None:
        """Make the caller known on first sight, take its newer profile, and refuse it if it was revoked.

        One SELECT when nothing is to be written. Raises UnauthorizedError, UnavailableError.
        """
        stored = await self._reader.find(principal.user_id)
        if stored is not None and is_revoked(principal, stored.tokens_valid_after):
            raise UnauthorizedError
        if stored is None or _is_newer(principal, stored):
            await self._store(principal)
        self._known.put(principal.user_id, principal)

    async def recognize_for_send(self, principal: Principal) -> None:
        """Do the same without a query for a caller seen lately. Only for what checks revocation itself.

        `send_batch` does: it reads `tokens_valid_after` in the transaction of the send.
        """
        known = self._known.get(principal.user_id)
        if known is None or not _adds_nothing_to(known, principal):
            await self.recognize(principal)

    def forget(self, user_id: str) -> None:
        """Look a caller up again: the database did not know it, and is not the one that did."""
        self._known.remove(user_id)

    async def ensure_users(self, user_ids: Sequence[str]) -> None:
        """Make the users that are missing, each with an inbox, in one transaction."""
        await commit_small(self._database, lambda connection: users.ensure(connection, user_ids), user_id=None)

    async def get_profile(self, reader_id: str, user_id: str) -> Person:
        """Read a profile: one's own, or of somebody with a conversation in common. Raises NotFoundError."""
        person = await users.find_visible(self._database, reader_id, user_id)
        if person is None:
            raise NotFoundError
        return person

    async def list_profiles(self, *, limit: int = 100) -> list[Person]:
        """Read everybody's profile: for the pages of a development server only."""
        return await users.list_users(self._database, limit=limit)

    async def put_user(self, user_id: str, *, name: str | None, avatar_url: str | None) -> Person:
        """Make or replace a user on the word of the host's server. No older token changes it back."""
        person = Person(user_id, name, avatar_url)

        async def put(connection: Connection) -> None:
            await users.ensure(connection, [user_id])
            await users.put_profile(connection, person)

        await commit_small(self._database, put, user_id=user_id)
        return person

    async def revoke(self, user_id: str) -> None:
        """End every stream of a user and refuse the tokens issued until now. Raises NotFoundError."""
        valid_after = await commit_small(
            self._database, lambda connection: users.revoke(connection, user_id), user_id=user_id
        )
        if valid_after is None:
            raise NotFoundError
        self._publisher.close_streams(user_id, valid_after=valid_after)

    async def _store(self, principal: Principal) -> None:
        async def store(connection: Connection) -> None:
            await users.ensure(connection, [principal.user_id])
            if principal.issued_at is not None and _has_profile(principal):
                person = Person(principal.user_id, principal.name, principal.avatar_url)
                await users.take_profile(connection, person, issued_at=principal.issued_at)

        await commit_small(self._database, store, user_id=principal.user_id)


def is_revoked(principal: Principal, valid_after: datetime | None) -> bool:
    """Whether the caller's token was issued at `valid_after` or before, in whole seconds.

    In whole seconds, because `iat` has no more: a token of the same second is refused, too.
    """
    if principal.issued_at is None or valid_after is None:
        return False
    return principal.issued_at <= valid_after.replace(microsecond=0)


def _is_newer(principal: Principal, stored: users.StoredUser) -> bool:
    if principal.issued_at is None or not _has_profile(principal):
        return False
    is_different = principal.name not in {None, stored.person.name} or principal.avatar_url not in {
        None,
        stored.person.avatar_url,
    }
    return is_different and (stored.profile_at is None or stored.profile_at < principal.issued_at)


def _adds_nothing_to(known: Principal, principal: Principal) -> bool:
    if principal.issued_at is None or not _has_profile(principal):
        return True
    if (principal.name, principal.avatar_url) == (known.name, known.avatar_url):
        return True
    return known.issued_at is not None and principal.issued_at <= known.issued_at


def _has_profile(principal: Principal) -> bool:
    return principal.name is not None or principal.avatar_url is not None
