"""How alembic runs here: over asyncpg, under an advisory lock, each migration in its transaction."""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

ADVISORY_LOCK = 0x6741504C  # any number of servers may start at once; one of them migrates
# Whoever wants a table after a migration that waits for it waits, too: so none waits for long. One that
# builds an index CONCURRENTLY is in nobody's way and takes this back for itself.
LOCK_TIMEOUT = "500ms"


def _migrate(connection: Connection) -> None:
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


async def _run() -> None:
    url = str(context.config.attributes["database_url"])
    engine = create_async_engine(
        url.replace("postgres://", "postgresql://").replace("postgresql://", "postgresql+asyncpg://"),
        poolclass=NullPool,
    )
    try:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ADVISORY_LOCK})
            await connection.execute(text("SELECT set_config('lock_timeout', :limit, false)"), {"limit": LOCK_TIMEOUT})
            await connection.commit()
            await connection.run_sync(_migrate)
            await connection.commit()
    finally:
        await engine.dispose()


asyncio.run(_run())
