"""Trims inboxes to what INBOX_RETENTION_DAYS promises. Messages themselves are kept."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from app.db import inbox
from app.errors import UnavailableError

if TYPE_CHECKING:
    from app.db.pool import Database

PAUSE_SECONDS: Final = 600.0
PIECE_ROWS: Final = 5000  # in one statement: well under its time-out

_log = structlog.get_logger(__name__)


async def keep_trimming(database: Database, *, days: int) -> None:
    """Trim every ten minutes until cancelled; of several processes one does it at a time."""
    while True:
        try:
            while await inbox.trim(database, days=days, max_rows=PIECE_ROWS) == PIECE_ROWS:  # noqa: ASYNC110
                await asyncio.sleep(0.1)  # senders go first
        except UnavailableError:
            _log.warning("retention_postponed")
        await asyncio.sleep(PAUSE_SECONDS)
