"""`gapless migrate`."""

from __future__ import annotations

import os

import sqlalchemy.exc
import typer

from app import development
from app.db import migrate
from app.db.pool import UNAVAILABLE
from app.exits import CommandError, Exit


def run() -> None:
    """Run what is missing."""
    url = database_url()
    try:
        migrate.migrate(url)
    except (*UNAVAILABLE, sqlalchemy.exc.OperationalError) as error:
        cause = getattr(error, "orig", None) or error
        raise CommandError(f"PostgreSQL does not answer: {cause or type(cause).__name__}", Exit.UNAVAILABLE) from error
    typer.echo(f"The database is at revision {migrate.newest_revision()}, which this version needs.")


def database_url() -> str:
    """Give DATABASE_URL, or the database of the development server of this folder. No other setting is needed."""
    url = os.environ.get("DATABASE_URL") or development.environment().get("database_url")
    if not url:
        raise CommandError("Set DATABASE_URL: postgresql://user:password@host/database.", Exit.CONFIG)
    return url
