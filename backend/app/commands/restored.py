"""`gapless restored`."""

from __future__ import annotations

import asyncio
import json

import asyncpg
import typer

from app.commands.migrate import database_url
from app.db.operations import renew_epoch
from app.db.pool import Database
from app.exits import CommandError


def run(*, as_json: bool) -> None:
    """Set a new epoch, and explain what that does."""
    asyncio.run(_renew(database_url()))
    if as_json:
        typer.echo(json.dumps({"renewed": True}))
        return
    typer.echo(
        "This database is now a history of its own. Every client that comes with a cursor from before is told\n"
        "`resync` and loads anew, where a cursor that means other messages now would have left a hole.\n"
        "Open streams learn of it within one heartbeat. Nothing needs to be restarted."
    )


async def _renew(url: str) -> None:
    database = Database(url)
    try:
        await renew_epoch(database)
    except asyncpg.UndefinedTableError:
        raise CommandError("This database has no Gapless in it. Run: gapless migrate") from None
    finally:
        await database.close()
