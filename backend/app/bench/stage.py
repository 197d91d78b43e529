"""The server under load and what stands behind it: our own, started for the run, or a running one.

Our own: an embedded PostgreSQL (fsync on) and Valkey in a temporary folder, and for each profile a new
database and one `gapless serve` in production settings on a core of its own. All of it ends with us.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import asyncpg

from app import development
from app.bench import procs
from app.bench.procs import Cores
from app.bench.target import Target
from app.db.migrate import migrate
from app.embedded import EmbeddedServers
from app.embedded_process import free_port
from app.exits import CommandError, Exit

SHARED_SETTINGS: Final = {"max_streams_per_user": 1000, "max_group_members": 10_000}  # what every profile can use


class GivenStage:
    """A server that runs already: nothing of it is started, pinned or stopped."""

    is_own = False
    load_cores = 0  # nothing is pinned

    def __init__(self, url: str) -> None:
        """Take the server's URL; where its database is comes from the environment, or from `gapless dev`."""
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise CommandError("--url takes http://host:port: the load client does not speak TLS.", Exit.USAGE)
        running = development.running_server()
        is_ours = running is not None and running.url.rstrip("/") == url.rstrip("/")
        found = development.environment() if is_ours else {}
        self._target = Target(
            "127.0.0.1" if parts.hostname == "localhost" else parts.hostname,
            parts.port or 80,
            secret=None,
            database_url=os.environ.get("DATABASE_URL") or found.get("database_url"),
            redis_url=os.environ.get("REDIS_URL") or found.get("redis_url"),
            pids={"server": running.pid} if is_ours and running is not None else {},
        )

    def urls(self) -> tuple[str | None, str | None]:
        """Give the URLs of PostgreSQL and Redis, as far as they are known."""
        return self._target.database_url, self._target.redis_url

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Do nothing: the server runs already."""
        yield

    @asynccontextmanager
    async def server(self, *, is_fresh: bool = False, **settings: object) -> AsyncIterator[Target]:
        """Give the server as it is."""
        del is_fresh, settings
        yield self._target


class OwnStage:
    """Servers of our own, below `folder`."""

    is_own = True

    def __init__(
        self,
        folder: Path,
        servers: EmbeddedServers,
        *,
        database_url: str,
        redis_url: str,
        cores: Cores,
        is_shared: bool,
    ) -> None:
        """Use running servers; `own_stage` starts them. `is_shared`: one Gapless server for all profiles."""
        self.folder = folder
        self._servers = servers
        self._database_url = database_url
        self._redis_url = redis_url
        self._number = 0
        self._is_shared = is_shared
        self._shared: Target | None = None
        self._running = AsyncExitStack()
        self.cores = cores

    @property
    def load_cores(self) -> int:
        """How many cores the load has for itself; 0 when it shares the server's."""
        return len(self.cores.load) if self.cores.are_apart else 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """End what profiles share with the block."""
        async with self._running:
            yield

    @asynccontextmanager
    async def server(self, *, is_fresh: bool = False, **settings: object) -> AsyncIterator[Target]:
        """Run one server process with a new database for the length of the block; keywords are settings.

        Where profiles share one, that is given, unless `is_fresh`.
        """
        if is_fresh or not self._is_shared:
            async with self._start(settings) as target:
                yield target
            return
        if self._shared is None:
            self._shared = await self._running.enter_async_context(self._start(SHARED_SETTINGS))
        yield self._shared

    @asynccontextmanager
    async def _start(self, settings: Mapping[str, object]) -> AsyncIterator[Target]:
        self._number += 1
        name = f"bench_{self._number}"
        url, _, template = self._database_url.rpartition("/")
        admin = await asyncpg.connect(f"{url}/postgres")
        try:
            await admin.execute(f'CREATE DATABASE {name} TEMPLATE "{template}"')
            secret, port = secrets.token_urlsafe(48), free_port()
            environment = {
                **{key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH", "HOME") if key in os.environ},
                "APP_ENV": "production",
                "HOST": "127.0.0.1",
                "PORT": str(port),
                "DATABASE_URL": f"{url}/{name}",
                "REDIS_URL": self._redis_url,
                "AUTH_JWT_SECRET": secret,
                **{key.upper(): str(value) for key, value in settings.items()},
            }
            command = [sys.executable, "-c", "from app.cli import main; main()", "serve"]
            log = self.folder / f"server-{self._number}.log"
            with procs.start_server(
                command, cores=self.cores.server, log=log, environment=environment, folder=self.folder
            ) as process:
                await procs.until_answers(process, "127.0.0.1", port, "/ready")
                yield Target(
                    "127.0.0.1",
                    port,
                    secret=secret,
                    database_url=f"{url}/{name}",
                    redis_url=self._redis_url,
                    pids={"server": process.pid, **self._backend_pids()},
                    cores=self.cores if self.cores.are_apart else None,
                )
            await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        finally:
            await admin.close()

    def urls(self) -> tuple[str | None, str | None]:
        """Give the URLs of PostgreSQL and Valkey."""
        return self._database_url, self._redis_url

    def _backend_pids(self) -> dict[str, int]:
        """Give the processes behind the server."""
        found = {"PostgreSQL": self._servers.postgres, "Valkey": self._servers.valkey}
        return {name: server.pid for name, server in found.items() if server is not None}


@contextmanager
def own_stage(*, is_shared: bool) -> Iterator[OwnStage]:
    """Start PostgreSQL and Valkey for the length of the block. Not from inside an event loop.

    `is_shared`: one Gapless server serves all profiles, to save time.
    """
    folder = Path(tempfile.mkdtemp(prefix="gapless-bench-"))
    folder.chmod(0o711)  # as root PostgreSQL runs as another user
    before = os.sched_getaffinity(0)
    cores = procs.choose_cores()
    try:
        # First of all: what is started from here on inherits it.
        os.sched_setaffinity(0, cores.load)
        servers = EmbeddedServers(folder)
        with servers as urls:
            migrate(urls.database_url)
            yield OwnStage(
                folder,
                servers,
                database_url=urls.database_url,
                redis_url=urls.redis_url,
                cores=cores,
                is_shared=is_shared,
            )
    finally:
        os.sched_setaffinity(0, before)
        shutil.rmtree(folder, ignore_errors=True)
