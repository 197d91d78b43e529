"""What is told live and never numbered: read receipts and typing."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING
from uuid import UUID

from app.db import members

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.db.members import ReadState
    from app.db.pool import Database
    from app.services.messaging.publisher import Publisher

TYPING_PAUSE_SECONDS = 2.0  # between two events of one user in one conversation
TYPING_EXPIRES_SECONDS = 6  # three events may be lost before the others see the typing end
MAX_TYPING_REMEMBERED = 10_000


class EphemeralService:
    """Read positions and typing. Groups over 100 members hear of neither: it would be all they hear."""

    def __init__(
        self,
        database: Database,
        publisher: Publisher,
        *,
        clock_seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """Write to `database`, announce through `publisher`."""
        self._database = database
        self._publisher = publisher
        self._throttle = TypingThrottle(clock_seconds)

    async def mark_read(self, reader_id: str, conversation_id: UUID, *, seq: int) -> ReadState:
        """Move the read position forward to `seq`, or to the newest message if that is lower.

        Never back; a position that does not move is not announced. Raises NotFoundError.
        """
        moved = await members.advance_read_position(self._database, reader_id, conversation_id, seq=seq)
        if moved is None:
            return await members.read_state(self._database, reader_id, conversation_id)
        receipt = {
            "conversation_id": conversation_id,
            "user_id": reader_id,
            "last_read_seq": moved.state.last_read_seq,
            "read_at": moved.read_at,
        }
        user_ids = [reader_id] if moved.member_ids is None else moved.member_ids
        self._publisher.ephemeral("read_receipt", receipt, user_ids=user_ids)
        return moved.state

    async def set_typing(self, typist_id: str, conversation_id: UUID, *, is_typing: bool) -> None:
        """Tell the other members, once in 2 s at most; what comes sooner is dropped. NotFoundError."""
        member_ids = await members.audience(self._database, typist_id, conversation_id)
        if member_ids is None or not self._throttle.admits(conversation_id, typist_id):
            return
        status = {
            "conversation_id": conversation_id,
            "user_id": typist_id,
            "is_typing": is_typing,
            "expires_in": TYPING_EXPIRES_SECONDS,
        }
        others = [user_id for user_id in member_ids if user_id != typist_id]
        self._publisher.ephemeral("typing_status", status, user_ids=others)


class TypingThrottle:
    """Remembers who typed where in the last 2 s.

    Per process: a user whose requests reach several processes may be heard once per process. Past
    its bound it forgets the oldest, who may then be heard early.
    """

    def __init__(self, clock_seconds: Callable[[], float]) -> None:
        """Measure time by `clock_seconds`, which never goes back."""
        self._clock_seconds = clock_seconds
        self._heard_at: OrderedDict[tuple[UUID, str], float] = OrderedDict()

    def admits(self, conversation_id: UUID, user_id: str) -> bool:
        """Whether the user may be heard now; if so it is remembered."""
        key = (conversation_id, user_id)
        now = self._clock_seconds()
        if now - self._heard_at.get(key, -TYPING_PAUSE_SECONDS) < TYPING_PAUSE_SECONDS:
            return False
        self._heard_at[key] = now
        self._heard_at.move_to_end(key)
        if len(self._heard_at) > MAX_TYPING_REMEMBERED:
            self._heard_at.popitem(last=False)
        return True
