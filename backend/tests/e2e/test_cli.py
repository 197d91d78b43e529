"""The commands of `gapless`, as scripts use them: output, exit codes, and what they do over restarts."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import asyncpg
import httpx2
import pytest

from app.schemas.events import stream_event
from tests.support.commands import children_of, dev_server, environment, eventually, processes_below, run, running
from tests.support.ports import free_port, free_ports
from tests.support.servers import JWT_SECRET, Server

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded servers need Linux"),
]

SOMEWHERE = {"DATABASE_URL": "postgresql://127.0.0.1:1/x", "REDIS_URL": "redis://127.0.0.1:1"}


async def test_tail_goes_on_where_it_was_when_the_server_restarts(tmp_path: Path, server: Server):
    await server.know("ada")
    async with running(tmp_path, "tail", "bob", "--json", "--url", server.url, AUTH_JWT_SECRET=JWT_SECRET) as tail:
        await tail.line('"connected"')
        for text in ("1", "2", "3"):
            await send(tmp_path, server, text)
        events = [json.loads(await tail.line()) for _ in range(3)]
        assert await end(server) == 0
        await server.start()
        # Most likely before the tail is back: the server told it to wait for a second at least.
        for text in ("4", "5"):
            await send(tmp_path, server, text)
        connected = json.loads(await tail.line('"connected"'))
        await send(tmp_path, server, "6")
        events += [json.loads(await tail.line()) for _ in range(3)]
        assert await tail.stop() in {-signal.SIGTERM, 143}
    assert connected["data"]["recovered"] is True
    assert [event["data"]["content"] for event in events] == ["1", "2", "3", "4", "5", "6"]
    assert [int(event["id"].rpartition(".")[2]) for event in events] == [1, 2, 3, 4, 5, 6]
    for event in events:
        stream_event.validate_json(json.dumps(event))


async def test_tail_waits_for_a_server_that_is_not_there_yet(tmp_path: Path, server: Server):
    assert await end(server) == 0
    async with running(tmp_path, "tail", "bob", "--url", server.url, AUTH_JWT_SECRET=JWT_SECRET) as tail:
        await eventually(lambda: "trying again until it does" in tail.log.read_text())
        await server.start()
        await tail.line("connected")


async def test_token_send_and_config_can_be_used_by_scripts(tmp_path: Path):
    async with dev_server(tmp_path) as (_, url):
        token = json.loads((await run(tmp_path, "token", "zoe", "--name", "Zoe", "--minutes", "5", "--json")).out)
        answer = httpx2.get(
            f"{url}/api/v1/users/me", headers={"Authorization": f"Bearer {token['token']}"}, trust_env=False
        )
        assert answer.json() == {"id": "zoe", "name": "Zoe", "avatar_url": None}

        key = "018f7e57-9a01-7000-8000-000000000001"
        sent = [await run(tmp_path, "send", "ada", "once", "--to", "zoe", "--key", key, "--json") for _ in range(2)]
        first, second = (json.loads(done.out) for done in sent)
        assert first == second
        assert first["content"] == "once"

        refused = await run(tmp_path, "send", "ada", "x", "--to", "nobody")
        assert (refused.code, refused.err) == (1, "gapless: 404: There is no such recipient.\n")
        for command in (["tail", "ada"], ["send", "ada", "x", "--to", "bob"]):
            refused = await run(tmp_path, *command, "--token", "not-a-token")
            assert refused.code == 77, refused.err
            assert "Traceback" not in refused.err
        assert (await run(tmp_path, "send", "ada", "neither --to nor --conversation")).code == 2

        settings = {line["name"]: line for line in json.loads((await run(tmp_path, "config", "--json")).out)}
        assert settings["APP_ENV"]["source"] == "gapless dev, which runs in this folder"
        password = (tmp_path / ".gapless/postgres.password").read_text().strip()
        secret = (tmp_path / ".gapless/auth_jwt_secret").read_text().strip()
        assert password not in json.dumps(settings)
        assert secret not in json.dumps(settings)

        healthy = await run(tmp_path, "doctor", "--url", url, "--json")
        checks = json.loads(healthy.out)
        assert healthy.code == 0, checks
        assert {check["name"] for check in checks} >= {"postgresql", "migrations", "clock", "pub/sub", "stream"}


async def test_a_message_cannot_command_the_terminal_that_shows_it(tmp_path: Path, server: Server):
    await server.know("ada")
    async with running(tmp_path, "tail", "bob", "--url", server.url, AUTH_JWT_SECRET=JWT_SECRET) as tail:
        await tail.line("connected")
        await send(tmp_path, server, "\x1b[2Jgone\u009b2J")
        assert (await tail.line("new_message")).endswith(r"ada: \x1b[2Jgone\x9b2J")


@pytest.mark.slow
async def test_send_to_nobody_there_gives_up_and_says_how_to_go_on(tmp_path: Path):
    done = await run(tmp_path, "send", "a", "x", "--to", "b", AUTH_JWT_SECRET=JWT_SECRET, PORT=free_port())
    assert done.code == 69
    assert "is safe" in done.err
    assert "Traceback" not in done.err


async def test_restored_makes_every_cursor_from_before_a_resync(tmp_path: Path, server: Server):
    settings = {"AUTH_JWT_SECRET": JWT_SECRET, "DATABASE_URL": server.database_url}
    async with running(tmp_path, "tail", "ada", "--json", "--url", server.url, **settings) as tail:
        before = json.loads(await tail.line('"connected"'))["data"]["cursor"]
        assert (await run(tmp_path, "restored", **settings)).code == 0
        assert json.loads(await tail.line('"resync"'))["data"]["scope"] == "all", (
            "open streams are told within a heartbeat"
        )
    async with running(tmp_path, "tail", "ada", "--json", "--url", server.url, "--cursor", before, **settings) as tail:
        assert json.loads(await tail.line('"connected"'))["data"]["recovered"] is False
        resync = json.loads(await tail.line('"resync"'))["data"]
        assert (resync["reason"], resync["scope"]) == ("epoch", "all")


async def test_doctor_names_what_is_wrong_and_migrate_mends_it(tmp_path: Path, postgres, valkey):
    wrong = {"DATABASE_URL": f"postgresql://x:y@127.0.0.1:{free_port()}/x", "REDIS_URL": "redis://127.0.0.1:1"}
    done = await run(tmp_path, "doctor", "--json", AUTH_JWT_SECRET=JWT_SECRET, **wrong)
    assert done.code == 1
    assert failed(done.out) == {"postgresql", "redis"}

    done = await run(tmp_path, "doctor", "--json")
    assert (done.code, failed(done.out)) == (1, {"settings"})

    empty = await make_database(postgres.url)
    good = {"DATABASE_URL": empty, "REDIS_URL": valkey.url, "AUTH_JWT_SECRET": JWT_SECRET}
    done = await run(tmp_path, "doctor", "--json", **good)
    assert (done.code, failed(done.out)) == (1, {"migrations"})
    done = await run(tmp_path, "serve", **good, PORT=0)
    assert done.code == 1
    assert "Run: gapless migrate" in done.err
    assert "Traceback" not in done.err
    for _ in range(2):
        done = await run(tmp_path, "migrate", DATABASE_URL=empty)
        assert done.code == 0, done.err
    done = await run(tmp_path, "doctor", "--json", **good)
    assert (done.code, failed(done.out)) == (0, set()), done.out


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({}, "Set AUTH_JWT_SECRET (HS256) or AUTH_JWKS_URL"),
        ({"AUTH_JWT_SECRET": JWT_SECRET}, "Set DATABASE_URL and REDIS_URL"),
        ({"AUTH_JWT_SECRET": "short"}, "AUTH_JWT_SECRET is shorter than 32 bytes"),
        ({"PORT": "many"}, "PORT: "),
        ({"CORS_ORIGINS": "*", "AUTH_JWT_SECRET": JWT_SECRET, **SOMEWHERE}, "CORS_ORIGINS takes exact origins"),
    ],
)
async def test_a_setting_that_is_not_usable_is_one_sentence_and_78(tmp_path: Path, settings: dict, sentence: str):
    done = await run(tmp_path, "serve", **settings)
    assert done.code == 78
    assert sentence in done.err
    assert done.err.startswith("gapless: ")
    assert "Traceback" not in done.err
    assert "short" not in done.err.replace("is shorter", "")


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_database_that_does_not_answer_is_one_sentence_and_69(tmp_path: Path, workers: str):
    # Where a person waits for half a minute, in case that it is being started.
    impatient = "from app import cli, startup; startup.WAIT_SECONDS = 0; cli.main()"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", impatient, "serve", "--workers", workers),
        cwd=tmp_path,
        env=environment({"AUTH_JWT_SECRET": JWT_SECRET, "PORT": 0, **SOMEWHERE}),
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await asyncio.wait_for(process.communicate(), 45)
    assert process.returncode == 69
    # The lines of the log are written by a thread of their own: before it, or after it.
    assert b"gapless: PostgreSQL at DATABASE_URL does not answer: ConnectionRefusedError.\n" in err
    assert b"Traceback" not in err


async def test_a_killed_worker_is_replaced_and_all_drain_together(tmp_path: Path, database_url: str, valkey):
    port = free_port()
    metrics_port, _ = free_ports(2)
    settings = {
        "DATABASE_URL": database_url,
        "REDIS_URL": valkey.url,
        "AUTH_JWT_SECRET": JWT_SECRET,
        "PORT": port,
        "METRICS_PORT": metrics_port,
    }
    folder = tmp_path / "x"
    async with running(folder, "serve", "--workers", "2", **settings) as server:
        workers = await eventually(lambda: children_of(server.pid) if len(children_of(server.pid)) == 2 else [])
        for number in range(2):
            await answers(f"http://127.0.0.1:{metrics_port + number}/metrics")
        await answers(f"http://127.0.0.1:{port}/ready")

        os.kill(workers[0], signal.SIGKILL)
        new = await eventually(lambda: set(children_of(server.pid)) - set(workers))
        assert len(new) == 1
        for number in range(2):
            await answers(f"http://127.0.0.1:{metrics_port + number}/metrics")
        await answers(f"http://127.0.0.1:{port}/ready")
        assert workers[1] in children_of(server.pid), "the other one was left alone"
        assert await server.stop() == 0
    assert processes_below(folder) == []
    assert "Traceback" not in server.log.read_text()


async def test_workers_die_with_a_killed_supervisor(tmp_path: Path, database_url: str, valkey):
    settings = {
        "DATABASE_URL": database_url,
        "REDIS_URL": valkey.url,
        "AUTH_JWT_SECRET": JWT_SECRET,
        "PORT": free_port(),
    }
    folder = tmp_path / "x"
    async with running(folder, "serve", "--workers", "2", **settings) as server:
        await answers(f"http://127.0.0.1:{settings['PORT']}/ready")
        assert len(children_of(server.pid)) == 2
        server.process.kill()
        await eventually(lambda: processes_below(folder) == [])


async def test_workers_that_cannot_start_end_the_server_with_the_reason_said_once(tmp_path: Path, postgres, valkey):
    settings = {
        "DATABASE_URL": await make_database(postgres.url),
        "REDIS_URL": valkey.url,
        "AUTH_JWT_SECRET": JWT_SECRET,
    }
    done = await run(tmp_path, "serve", "--workers", "2", **settings, PORT=0)
    assert done.code == 1
    assert done.err.count("Run: gapless migrate") == 1
    assert "Traceback" not in done.err


async def send(folder: Path, server: Server, text: str) -> None:
    done = await run(folder, "send", "ada", text, "--to", "bob", "--url", server.url, AUTH_JWT_SECRET=JWT_SECRET)
    assert done.code == 0, done.err


async def end(server: Server) -> int:
    assert server.process is not None
    assert server.process.stdout is not None
    server.process.stdout.close()  # the next start has a pipe of its own
    return await server.terminate()


async def answers(url: str, *, seconds: float = 30) -> None:
    """Wait until a URL is answered with 200."""
    async with httpx2.AsyncClient(trust_env=False) as client, asyncio.timeout(seconds):
        while True:
            try:
                if (await client.get(url)).status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            await asyncio.sleep(0.02)


def failed(out: str) -> set[str]:
    return {check["name"] for check in json.loads(out) if check["outcome"] == "fail"}


async def make_database(url: str) -> str:
    """An empty database on the tests' PostgreSQL, which goes with the run."""
    name = f"empty_{os.urandom(6).hex()}"
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
    finally:
        await connection.close()
    return url.rpartition("/")[0] + "/" + name
