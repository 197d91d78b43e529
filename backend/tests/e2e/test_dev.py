"""`gapless dev`: one command to the first message; it ends with everything it started."""

import json
import os
import signal
import socket
import stat
import sys
import time
from pathlib import Path

import httpx2
import pytest

from app.auth import mint_token
from tests.support.commands import dev_server, eventually, processes_below, run, running, servers_below
from tests.support.ports import free_port

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded servers need Linux"),
]


async def test_the_second_start_is_quick_and_finds_what_the_first_one_made(tmp_path: Path):
    async with dev_server(tmp_path) as (server, url):
        first = await read_all(tmp_path, url)
        assert [message["content"] for message in first["Harbour walk"]][-1] == "Then I bring the cake. See you there!"
        assert {member["name"] for member in first["members"]} == {"Ada Lovelace", "Bob Kahn", "Cleo Marsh"}
        done = await run(tmp_path, "send", "ada", "kept?", "--to", "bob")
        assert done.code == 0, done.err
        before = await read_all(tmp_path, url)
        assert await server.stop() == 0
    assert servers_below(tmp_path) == []

    started_at = time.monotonic()
    async with running(tmp_path, "dev", PORT=0) as server:
        await server.line("Gapless ")
        took_seconds = time.monotonic() - started_at
        url = json.loads((tmp_path / ".gapless/running.json").read_text())["url"]
        assert await read_all(tmp_path, url) == before
        assert await server.stop() == 0
    # 1.9 s on an idle machine with two cores; this one may be busy with other tests.
    assert took_seconds < 6


async def test_secrets_are_for_the_owner_only_and_production_would_refuse_them(tmp_path: Path):
    async with dev_server(tmp_path):
        folder = tmp_path / ".gapless"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for name in ("auth_jwt_secret", "server_api_key", "running.json"):
            assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name
        secret = (folder / "auth_jwt_secret").read_text().strip()
        key = (folder / "server_api_key").read_text().strip()
    urls = {"DATABASE_URL": "postgresql://127.0.0.1:1/x", "REDIS_URL": "redis://127.0.0.1:1"}
    for settings in ({"AUTH_JWT_SECRET": secret}, {"AUTH_JWT_SECRET": "x" * 32, "SERVER_API_KEY": key}):
        done = await run(tmp_path, "serve", **urls, **settings)
        assert done.code == 78
        assert "is a development secret" in done.err
        assert "Traceback" not in done.err
        assert secret not in done.err
        assert key not in done.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_open_streams_and_then_everything_with_exit_code_0(tmp_path: Path, number: int):
    async with dev_server(tmp_path) as (server, url):
        async with httpx2.AsyncClient(timeout=20, trust_env=False) as client:
            stream = client.stream(
                "GET", f"{url}/api/v1/messages/stream?user_id=bob", headers=credential(tmp_path, "bob")
            )
            async with stream as response:
                lines = response.aiter_lines()
                assert [line async for line in until(lines, "event: connected")]
                server.process.send_signal(number)
                assert [line async for line in until(lines, "retry: ")], "the stream said when to come back"
        assert await server.ended() == 0
    assert processes_below(tmp_path) == []
    assert not (tmp_path / ".gapless/running.json").exists()


async def test_kill_9_leaves_no_server_and_the_next_start_finds_the_data(tmp_path: Path):
    async with dev_server(tmp_path) as (server, url):
        assert len(servers_below(tmp_path)) >= 2
        before = await read_all(tmp_path, url)
        server.process.kill()
        await server.ended()
        await eventually(lambda: processes_below(tmp_path) == [])
    async with dev_server(tmp_path) as (server, url):
        assert await read_all(tmp_path, url) == before
        assert await server.stop() == 0


async def test_a_signal_during_the_first_start_leaves_nothing_behind(tmp_path: Path):
    async with running(tmp_path, "dev", PORT=0) as server:
        await eventually((tmp_path / ".gapless/embedded.lock").exists)
        assert await server.stop() == 0
    await eventually(lambda: processes_below(tmp_path) == [])
    async with dev_server(tmp_path) as (server, _):
        assert await server.stop() == 0


async def test_two_folders_do_not_disturb_each_other(tmp_path: Path):
    async with dev_server(tmp_path / "a") as (first, _), dev_server(tmp_path / "b") as (second, url):
        done = await run(tmp_path / "a", "send", "ada", "only in a", "--to", "bob")
        assert done.code == 0, done.err
        assert await first.stop() == 0
        assert servers_below(tmp_path / "a") == []
        assert "only in a" not in json.dumps(await read_all(tmp_path / "b", url))
        assert await second.stop() == 0


async def test_servers_of_ones_own_are_used_and_no_others_started(tmp_path: Path, database_url: str, valkey):
    async with dev_server(tmp_path / "x", DATABASE_URL=database_url, REDIS_URL=valkey.url) as (server, url):
        assert servers_below(tmp_path / "x") == []
        done = await run(tmp_path / "x", "doctor", "--url", url)
        assert done.code == 0, done.out
        assert await server.stop() == 0


async def test_redis_of_ones_own_goes_with_the_embedded_postgresql(tmp_path: Path, valkey):
    async with dev_server(tmp_path / "x", REDIS_URL=valkey.url) as (server, url):
        assert json.loads((tmp_path / "x/.gapless/running.json").read_text())["redis_url"] == valkey.url
        assert await read_all(tmp_path / "x", url)
        assert await server.stop() == 0


async def test_a_taken_port_is_said_in_a_sentence_and_nothing_is_started(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = await run(tmp_path, "dev", PORT=port)
    assert done.code == 1
    assert done.err.startswith(f"gapless: Cannot listen on 127.0.0.1 port {port}: Address already in use.")
    assert done.err.count("\n") == 1
    assert processes_below(tmp_path) == []
    assert not (tmp_path / ".gapless/postgres").exists()


async def test_only_this_machine_may_be_listened_on(tmp_path: Path):
    for host in ("0.0.0.0", "example.com"):
        done = await run(tmp_path, "dev", "--host", host)
        assert (done.code, done.out) == (78, "")
        assert "this machine only" in done.err


async def test_a_second_one_in_the_same_folder_names_the_first(tmp_path: Path):
    async with dev_server(tmp_path) as (server, url):
        done = await run(tmp_path, "dev", PORT=free_port())
        assert done.code == 1
        assert f"Process {server.pid} already runs" in done.err
        assert await read_all(tmp_path, url), "the first one goes on"


async def test_the_api_page_needs_nothing_from_elsewhere(tmp_path: Path):
    async with (
        dev_server(tmp_path, "--no-demo") as (_, url),
        httpx2.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        page = await client.get("/docs")
        assert page.status_code == 200
        assert "://" not in page.text
        assert "unsafe" not in page.headers["content-security-policy"]
        for path in ("/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/docs/start.js", "/openapi.json"):
            assert (await client.get(path)).status_code == 200, path
        for path in ("/docs/index.html", "/docs/..%2Fpyproject.toml"):
            assert (await client.get(path)).status_code == 404, path
        assert "gapless_streams_open" in (await client.get("/metrics")).text
        answer = await client.get("/api/v1/conversations", headers=credential(tmp_path, "ada"))
        assert answer.json()["items"] == [], "--no-demo"


async def test_root_and_an_ordinary_user_can_both_run_it(tmp_path: Path):
    """The other tests run as whoever runs them; this one as somebody else where that is root."""
    somebody = ("unshare", "-U", "--map-user=1000", "--map-group=1000") if os.getuid() == 0 else ()
    async with dev_server(tmp_path, "--no-demo", prefix=somebody) as (server, _):
        assert len(servers_below(tmp_path)) >= 2
        assert await server.stop() == 0
    assert processes_below(tmp_path) == []


async def until(lines, beginning: str):
    """The first line that begins so, or nothing."""
    async for line in lines:
        if line.startswith(beginning):
            yield line
            return


def credential(folder: Path, user: str) -> dict[str, str]:
    secret = (folder / ".gapless/auth_jwt_secret").read_text().strip()
    return {"Authorization": f"Bearer {mint_token(secret, user)}"}


async def read_all(folder: Path, url: str) -> dict:
    """What Ada sees: her conversations' messages by title, and the members of the group."""
    async with httpx2.AsyncClient(
        base_url=f"{url}/api/v1", headers=credential(folder, "ada"), trust_env=False, timeout=20
    ) as client:
        conversations = (await client.get("/conversations")).json()["items"]
        seen: dict = {}
        for conversation in conversations:
            page = (await client.get(f"/conversations/{conversation['id']}/messages")).json()
            seen[conversation["title"] or conversation["kind"]] = page["items"]
            if conversation["kind"] == "group":
                seen["members"] = conversation["members"]
        return seen
