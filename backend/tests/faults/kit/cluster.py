"""Everything a scenario may hurt: a PostgreSQL, a Valkey and equal Gapless processes, with links between them."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import asyncpg
from redis.asyncio import Redis

from app.db.migrate import migrate
from app.embedded import PostgresProcess, ValkeyProcess, start_postgres, start_valkey
from tests.faults.kit.link import Link
from tests.support.ports import free_port
from tests.support.servers import Server


class PostgresNode:
    """A PostgreSQL of the scenario's own; its port and data outlive its process."""

    def __init__(self, folder: Path, *, settings: dict[str, str] | None = None) -> None:
        self.folder = folder
        self._settings = settings
        self._process: PostgresProcess | None = None

    @property
    def process(self) -> PostgresProcess:
        assert self._process is not None
        return self._process

    @property
    def url(self) -> str:
        return self.process.url

    @property
    def port(self) -> int:
        return self.process.port

    async def start(self) -> None:
        """Start it, on its former port if it had one. Crash recovery is part of it."""
        port = self._process.port if self._process is not None else None
        self._process = await asyncio.to_thread(start_postgres, self.folder, port, settings=self._settings)

    async def stop_fast(self) -> None:
        """As `pg_ctl stop -m fast`: sessions are ended, open transactions rolled back."""
        await asyncio.to_thread(self.process.stop)

    async def stop_immediate(self) -> None:
        """As `pg_ctl stop -m immediate`: no checkpoint, recovery at the next start."""
        os.kill(self.process.pid, signal.SIGQUIT)
        await asyncio.to_thread(self.process.stop)

    def freeze(self) -> None:
        """Stop the postmaster and every backend as they are."""
        for pid in self.pids():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in self.pids():
            with suppress(ProcessLookupError):  # a backend that ends by itself
                os.kill(pid, signal.SIGCONT)

    def pids(self) -> list[int]:
        """The postmaster first, then its children."""
        pid = self.process.pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            children = []
        return [pid, *map(int, children)]

    async def connect(self) -> asyncpg.Connection:
        """A connection of a foreign program, past every link."""
        return await asyncpg.connect(self.url, server_settings={"application_name": "a scenario"})

    async def close(self) -> None:
        if self._process is not None:
            self.thaw()
            await asyncio.to_thread(self._process.stop)


class ValkeyNode:
    """A Valkey of the scenario's own, always on the same port."""

    def __init__(self, folder: Path, *, extra_args: Sequence[str] = ()) -> None:
        self._folder, self._extra_args = folder, extra_args
        self._process: ValkeyProcess | None = None
        self._starts = 0

    @property
    def process(self) -> ValkeyProcess:
        assert self._process is not None
        return self._process

    @property
    def url(self) -> str:
        return self.process.url

    @property
    def port(self) -> int:
        return self.process.port

    async def start(self) -> None:
        """Start it empty, on its former port if it had one."""
        port = self._process.port if self._process is not None else None
        self._starts += 1
        folder = self._folder / str(self._starts)
        self._process = await asyncio.to_thread(start_valkey, folder, port, extra_args=self._extra_args)

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()

    def freeze(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    async def command(self, *words: str, answer_seconds: float = 5) -> object:
        """Run one command past every link, and give its reply (text, number, list, None or a redis error)."""
        async with Redis(port=self.port, decode_responses=True, socket_timeout=answer_seconds) as redis:
            return await redis.execute_command(*words)

    async def close(self) -> None:
        if self._process is not None and self._process.running:
            await asyncio.to_thread(self._process.stop)


@dataclass
class Cluster:
    """One of each, and `servers`. A list of links has one per process, or is empty where nothing is in between.

    `front_ports` are those of proxies, or of processes that the scenario starts itself: `other_processes` of them.
    What `before_leak_check` holds is called when all clients are gone: a proxy keeps connections for the next one.
    """

    folder: Path
    postgres: PostgresNode
    valkey: ValkeyNode
    servers: list[Server] = field(default_factory=list)
    client_links: list[Link] = field(default_factory=list)
    redis_links: list[Link] = field(default_factory=list)
    postgres_links: list[Link] = field(default_factory=list)
    front_ports: list[int] = field(default_factory=list)
    other_processes: int = 0
    before_leak_check: list[Callable[[], None]] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @classmethod
    def below(cls, folder: Path) -> Cluster:
        folder.chmod(0o755)  # as root PostgreSQL runs as nobody
        return cls(folder, PostgresNode(folder / "pg"), ValkeyNode(folder / "valkey"))

    async def start(
        self,
        processes: int = 2,
        *,
        link_clients: bool = False,
        link_redis: bool = False,
        link_postgres: bool = False,
        **settings: object,
    ) -> Self:
        """Start all of it, empty; keywords are settings of every process."""
        self.settings = {name.upper(): str(value) for name, value in settings.items()}
        await asyncio.gather(self._start_postgres(), self.valkey.start())
        for number in range(processes):
            await self.add_server(
                link_client=link_clients, link_redis=link_redis, link_postgres=link_postgres, number=number
            )
        return self

    async def add_server(
        self,
        *,
        link_client: bool = False,
        link_redis: bool = False,
        link_postgres: bool = False,
        number: int | None = None,
        prefix: Sequence[str] = (),
        **settings: object,
    ) -> Server:
        """Start one more process, behind `prefix`; keywords are settings of its own (FAILPOINT is one)."""
        database_url, redis_url = self.postgres.url, self.valkey.url
        if link_postgres:
            self.postgres_links.append(await self._stack.enter_async_context(Link(self.postgres.port)))
            database_url = _with_port(database_url, self.postgres_links[-1].port)
        if link_redis:
            self.redis_links.append(await self._stack.enter_async_context(Link(self.valkey.port)))
            redis_url = _with_port(redis_url, self.redis_links[-1].port)
        number = len(self.servers) if number is None else number
        own = {name.upper(): str(value) for name, value in settings.items()}
        vitals = {"VITALS": str(self.folder / f"vitals-{number}.json")}
        server = Server(
            database_url,
            redis_url,
            self.folder / f"server-{number}.log",
            {**self.settings, **vitals, **own},
            # While it is down nobody's outgoing connection may take its port.
            port=free_port(),
            prefix=prefix,
        )
        self.servers.append(server)
        await server.start()
        if link_client:
            self.client_links.append(await self._stack.enter_async_context(Link(server.port)))
        return server

    @property
    def ports(self) -> list[int]:
        """Where clients go: what stands in front where there is anything."""
        if self.front_ports:
            return self.front_ports
        if self.client_links:
            return [link.port for link in self.client_links]
        return [server.port for server in self.servers]

    async def close(self) -> None:
        await asyncio.gather(*(server.close() for server in self.servers))
        await self._stack.aclose()
        await asyncio.gather(self.postgres.close(), self.valkey.close())

    async def _start_postgres(self) -> None:
        await self.postgres.start()
        await asyncio.to_thread(migrate, self.postgres.url)


def _with_port(url: str, port: int) -> str:
    return re.sub(r":\d+/", f":{port}/", url)
