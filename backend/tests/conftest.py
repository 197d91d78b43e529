"""Real servers for tests: one PostgreSQL per run, a database and a Valkey per test."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from app.db.migrate import migrate
from app.embedded import PostgresProcess, ValkeyProcess, start_postgres, start_valkey
from tests.support.meter import Meter
from tests.support.servers import Server
from tests.support.streams import StreamClient

pytest_plugins = ["tests.plugins.browser"]

# A shell that puts us in the background has it ignored, and every process that we start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

StartServer = Callable[..., Awaitable[Server]]
OpenStream = Callable[..., Awaitable[StreamClient]]


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresProcess]:
    """One PostgreSQL for the run of this worker; its databases are the tests' own."""
    folder = Path(tempfile.mkdtemp(prefix="gapless-tests-"))
    folder.chmod(0o755)  # as root the server runs as nobody
    server = start_postgres(folder)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def template(postgres: PostgresProcess) -> str:
    """A migrated database that every test's own is copied from (60 ms)."""
    migrate(postgres.url)
    return postgres.url.rpartition("/")[2]


@pytest.fixture
async def database_url(postgres: PostgresProcess, template: str) -> AsyncIterator[str]:
    """A migrated database of the test's own."""
    name = f"test_{secrets.token_hex(6)}"
    admin_url = postgres.url.rpartition("/")[0] + "/postgres"
    admin = await asyncpg.connect(admin_url)
    try:
        await admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        yield postgres.url.rpartition("/")[0] + "/" + name
        await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        await admin.close()


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the test's own: what a foreign program would do to the database."""
    connection = await asyncpg.connect(database_url)
    try:
        yield connection
    finally:
        connection.terminate()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyProcess]:
    """A Valkey of the test's own: channels are shared by all databases of one server."""
    server = start_valkey(tmp_path / "valkey")
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
async def start_server(database_url: str, valkey: ValkeyProcess, tmp_path: Path) -> AsyncIterator[StartServer]:
    """Start Gapless processes on the test's database and Valkey; keywords are settings."""
    servers: list[Server] = []

    async def start(**settings: object) -> Server:
        environment = {name.upper(): str(value) for name, value in settings.items()}
        redis_url = environment.pop("REDIS_URL", valkey.url)
        url = environment.pop("DATABASE_URL", database_url)
        server = Server(url, redis_url, tmp_path / f"server-{len(servers)}.log", environment)
        servers.append(server)
        return await server.start()

    try:
        yield start
    finally:
        await asyncio.gather(*(server.close() for server in servers))


@pytest.fixture
async def server(start_server: StartServer) -> Server:
    """One Gapless process."""
    return await start_server()


@pytest.fixture
async def open_stream() -> AsyncIterator[OpenStream]:
    """Open streams that are cut at the end of the test."""
    clients: list[StreamClient] = []

    async def open_one(server: Server, user: str, **fields: object) -> StreamClient:
        client = StreamClient(server, user, **fields)  # type: ignore[arg-type]
        clients.append(client)
        return await client.connected()

    try:
        yield open_one
    finally:
        for client in clients:
            client.cut()


@pytest.fixture
async def meter() -> AsyncIterator[Meter]:
    """What the machine itself stood still for: a bound on a time has to allow it."""
    meter = Meter()
    async with meter.running():
        yield meter
