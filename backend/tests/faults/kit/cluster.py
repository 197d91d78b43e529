"""Everything a scenario may hurt: a PostgreSQL, a Valkey and equal Gapless processes, with links between them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from app.db.migrate import migrate
from tests.faults.kit.link import Link
from tests.faults.kit.nodes import PostgresNode, ValkeyNode
from tests.support.ports import free_port
from tests.support.servers import Server


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
