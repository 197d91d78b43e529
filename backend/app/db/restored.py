"""A new history: what has to be said after a database was restored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.db.statements import statements

if TYPE_CHECKING:
    from app.db.pool import Database
