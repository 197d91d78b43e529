"""Trims inboxes to what INBOX_RETENTION_DAYS promises. Messages themselves are kept."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import asyncpg
import structlog

from app.db import inbox
from app.errors import UnavailableError

if TYPE_CHECKING:
    from app.db.pool import Database

# One piece: far below the time-out of a statement, also where every row has to come from a slow disk.
PIECE_USERS: Final = 200
PIECE_ROWS: Final = 1000
MAX_HALVINGS: Final = 6  # of a piece that takes too long all the same
PIECE_PAUSE_SECONDS: Final = 0.1  # senders go first; a million users take ten minutes
ROUND_PAUSE_SECONDS: Final = 3600.0  # between two visits to all users: it is about days
TURN_PAUSE_SECONDS: Final = 600.0  # until a process asks whether it is its turn

_log = structlog.get_logger(__name__)


async def keep_trimming(database: Database, *, days: int) -> None:
    """Visit all inboxes every hour until cancelled; of several processes one does it at a time."""
    while True:
        try:
            await _trim_in_pieces(database, days)
        except UnavailableError:
            _log.warning("retention_postponed")
        await asyncio.sleep(TURN_PAUSE_SECONDS)


async def _trim_in_pieces(database: Database, days: int) -> None:
    """Visit inboxes while it is this process' turn. Raises UnavailableError."""
    halvings = 0  # for as long as it goes on: what is slow here will be slow there
    while True:
        try:
            trimmed = await inbox.trim(
                database,
                days=days,
                max_users=PIECE_USERS >> halvings,
                max_rows=PIECE_ROWS >> halvings,
                pause_seconds=PIECE_PAUSE_SECONDS,
                rest_seconds=ROUND_PAUSE_SECONDS,
            )
        except UnavailableError as error:
            if halvings == MAX_HALVINGS or not isinstance(error.__cause__, asyncpg.QueryCanceledError):
                raise
            halvings += 1  # the same once more would take as long, and nothing would ever be removed
        else:
            if trimmed is None or trimmed.is_end:
                return
        await asyncio.sleep(PIECE_PAUSE_SECONDS)
