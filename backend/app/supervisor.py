"""Several workers behind one socket: started, restarted when they crash, drained together.

The socket is bound once, here, and inherited; while a worker is being replaced its share of new
connections goes to the others. What a worker's death costs is its open streams, which reconnect with
their cursors.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
import time
from asyncio.subprocess import Process
from typing import Final

import structlog

from app import observability, startup
from app.db.pool import Database
from app.exits import Exit
from app.settings import Settings

STOP_SECONDS: Final = 15.0  # they end within 14 s, and the interpreter
FIRST_PAUSE_SECONDS: Final = 0.5
MAX_PAUSE_SECONDS: Final = 30.0
STEADY_SECONDS: Final = 60.0  # a worker that lived longer crashed for another reason than the last time

_log = structlog.get_logger(__name__)


def supervise(settings: Settings, listener: socket.socket) -> Exit:
    """Keep `settings.workers` workers on `listener` until SIGTERM or SIGINT. Raises StartupError."""
    observability.configure_logging(settings.log_level, as_json=settings.is_production)
    return asyncio.run(_Supervisor(settings, listener).run())


class _Supervisor:
    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        self._stopping = asyncio.Event()
        self._workers: dict[int, Process] = {}
        self._outcome = Exit.OK

    async def run(self) -> Exit:
        # Here and once, so that what keeps all workers from starting is said once.
        await self._check()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        keepers = [asyncio.ensure_future(self._keep(number)) for number in range(self._settings.workers)]
        await self._stopping.wait()
        self._listener.close()  # or connections would be taken that no worker answers
        self._tell_all(signal.SIGTERM)
        _, late = await asyncio.wait(keepers, timeout=STOP_SECONDS)
        if late:
            _log.error("workers_killed", workers=len(late), after_seconds=STOP_SECONDS)
            self._tell_all(signal.SIGKILL)
            await asyncio.wait(late)
            return Exit.FAILED
        return self._outcome

    async def _check(self) -> None:
        if self._settings.database_url is not None:
            database = Database(self._settings.database_url)
            try:
                await startup.prepare(database, self._settings)
            finally:
                await database.close()

    async def _keep(self, number: int) -> None:
        """Run one worker after the other until all are to stop."""
        pause_seconds = FIRST_PAUSE_SECONDS
        is_first = True
        while not self._stopping.is_set():
            started_at = time.monotonic()
            code = await self._run_worker(number)
            if self._stopping.is_set():
                return
            if is_first and code in {Exit.FAILED, Exit.UNAVAILABLE, Exit.CONFIG}:
                # It has said why, and has tried for as long as that could help.
                self._outcome = Exit(code)
                self._stopping.set()
                return
            is_first = False
            if time.monotonic() - started_at > STEADY_SECONDS:
                pause_seconds = FIRST_PAUSE_SECONDS
            _log.error("worker_ended", worker=number, code=code, restart_seconds=round(pause_seconds, 1))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_seconds * random.uniform(0.8, 1.2)):  # noqa: S311 - jitter
                    await self._stopping.wait()
            pause_seconds = min(MAX_PAUSE_SECONDS, pause_seconds * 2)

    async def _run_worker(self, number: int) -> int:
        descriptor = self._listener.fileno()
        if descriptor < 0:  # closed: all are to stop
            return 0
        arguments = (str(value) for value in (descriptor, number, os.getpid()))
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app.serving", *arguments, pass_fds=[descriptor], stdin=asyncio.subprocess.DEVNULL
        )
        self._workers[number] = worker
        if self._stopping.is_set():  # the signal came while it was being made
            self._tell(worker, signal.SIGTERM)
        _log.info("worker_started", worker=number, pid=worker.pid)
        try:
            return await worker.wait()
        finally:
            del self._workers[number]

    def _tell_all(self, number: signal.Signals) -> None:
        for worker in self._workers.values():
            self._tell(worker, number)

    def _tell(self, worker: Process, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            worker.send_signal(number)
