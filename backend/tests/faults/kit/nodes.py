"""A PostgreSQL and a Valkey of a scenario's own, which it may stop, kill, freeze and start again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

import asyncpg
from redis.asyncio import Redis

from app.embedded import PostgresProcess, ValkeyProcess, start_postgres, start_valkey

Process = TypeVar("Process", PostgresProcess, ValkeyProcess)


class Node(Generic[Process]):
    """What a scenario can do to either; its port outlives its process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        assert self._process is not None
        return self._process

    @property
    def url(self) -> str:
        return self.process.url

    @property
    def port(self) -> int:
        return self.process.port

    @property
    def former_port(self) -> int | None:
        """Where it is to be started again; None before the first start."""
        return self._process.port if self._process is not None else None


class PostgresNode(Node[PostgresProcess]):
    """A PostgreSQL; its data outlive its process, too."""

    def __init__(self, folder: Path, *, settings: dict[str, str] | None = None) -> None:
        super().__init__(folder)
        self._settings = settings

    async def start(self) -> None:
        """Start it, on its former port if it had one. Crash recovery is part of it."""
        self._process = await asyncio.to_thread(start_postgres, self.folder, self.former_port, settings=self._settings)

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


class ValkeyNode(Node[ValkeyProcess]):
    """A Valkey. It keeps nothing."""

    def __init__(self, folder: Path, *, extra_args: Sequence[str] = ()) -> None:
        super().__init__(folder)
        self._extra_args = extra_args
        self._starts = 0

    async def start(self) -> None:
        """Start it empty, on its former port if it had one."""
        self._starts += 1
        self._process = await asyncio.to_thread(
            start_valkey, self.folder / str(self._starts), self.former_port, extra_args=self._extra_args
        )

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
