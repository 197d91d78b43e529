"""The peers: how each is started, on the core that Gapless has in its turn, and how load is put on it."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import jwt

from app.bench import procs
from app.bench.counting import Rules
from app.bench.plan import Plan
from app.bench.posts import Posts, encode_request
from app.bench.publish import HttpFeed, RedisFeed, redis_command
from app.bench.stage import OwnStage
from app.bench.streams import StreamRequest, Streams
from app.embedded_process import free_port

PEERS = Path(__file__).parent / "peers"
STREAMS = 1000
BODY = b'{"content":"' + b"x" * 200 + b'"}'  # about 300 bytes on the wire with what each server adds
STEP_MESSAGES = 20_000  # deliveries under way at most
SECRET = "a-secret-for-the-length-of-this-run"  # noqa: S105
NCHAN_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")

Measure = Callable[[OwnStage, Plan], Awaitable[list[float]]]  # gives what was done a second, once per repeat

# --- Deliveries by peers -------------------------------------------------------------------------

NCHAN_RULES = Rules(marker=b"\nevent: new_message\n")
TUTORIAL_RULES = Rules(marker=b"event: new_message", numbers=None, event_end=b"\r\n\r\n")


@asynccontextmanager
async def nchan(stage: OwnStage) -> AsyncIterator[int]:
    folder = stage.folder / f"nchan-{time.monotonic_ns()}"
    folder.mkdir()
    folder.chmod(0o777)  # nginx's worker may be another user
    port = free_port()
    text = (PEERS / "nchan.conf").read_text()
    for name, value in {"MODULE": NCHAN_MODULE, "FOLDER": folder, "PORT": port}.items():
        text = text.replace(name, str(value))
    if os.getuid() == 0:
        text = "user root;\n" + text
    (folder / "nginx.conf").write_text(text)
    command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with procs.start_server(
        command, cores=stage.cores.server, log=folder / "out.log", environment={"PATH": os.environ["PATH"]}
    ) as process:
        await listening(process, port)
        yield port


@asynccontextmanager
async def python_peer(stage: OwnStage, module: str, database_url: str = "") -> AsyncIterator[int]:
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(PEERS), "REDIS_URL": stage.urls()[1] or "",
        "DATABASE_URL": database_url, "AUTH_JWT_SECRET": SECRET,
    }  # fmt: skip
    command = [
        sys.executable, "-m", "uvicorn", f"{module}:app", "--port", str(port), "--loop", "uvloop",
        "--http", "httptools", "--no-access-log", "--log-level", "warning", "--backlog", "4096",
    ]  # fmt: skip
    log = stage.folder / f"{module}.log"
    with procs.start_server(command, cores=stage.cores.server, log=log, environment=environment) as process:
        await listening(process, port)
        yield port


async def listening(process: procs.ServerProcess, port: int) -> None:
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if not process.running:
                break
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    sys.exit(f"the peer does not start:\n{process.log_tail()}")


def delivery_of(peer: str, *, users: int) -> Measure:
    async def measure(stage: OwnStage, plan: Plan) -> list[float]:
        names = [f"user{number}" for number in range(users)]
        server = nchan(stage) if peer == "nchan" else python_peer(stage, "tutorial_server")
        async with server as port:
            rules = NCHAN_RULES if peer == "nchan" else TUTORIAL_RULES
            streams = Streams("127.0.0.1", port, rules=rules)
            requests = [StreamRequest(f"{number}", f"/stream/{names[number % users]}") for number in range(STREAMS)]
            await streams.open(requests, concurrency=100)
            await asyncio.sleep(1)  # peers do not say when they have subscribed
            if peer == "nchan":
                feed: HttpFeed | RedisFeed = await HttpFeed.connect("127.0.0.1", port)
                commands = [encode_request("POST", f"/publish/{name}", "127.0.0.1", {}, BODY) for name in names]
            else:
                feed = await RedisFeed.connect(stage.urls()[1] or "")
                commands = [redis_command(b"user:" + name.encode(), BODY) for name in names]
            streams.read_in_bulk()
            try:
                return [await pumped(streams, feed, commands, plan.seconds) for _ in range(plan.repeats)]
            finally:
                feed.close()
                streams.close()

    return measure


async def pumped(streams: Streams, feed: HttpFeed | RedisFeed, commands: list[bytes], seconds: float) -> float:
    """Publish for so long, with a bounded number of deliveries under way. Gives deliveries a second."""
    each = STREAMS // len(commands)
    start, before = time.perf_counter(), streams.tally.received
    expected = before
    step = commands * max(1, STEP_MESSAGES // 2 // (each * len(commands)))
    while time.perf_counter() - start < seconds:
        feed.write(step)
        expected += len(step) * each
        if not await streams.until(expected - STEP_MESSAGES // 2, timeout_seconds=10):
            sys.exit(f"the peer lost {expected - streams.tally.received} deliveries: {streams.tally.faults()}")
    await streams.until(expected, timeout_seconds=10)
    return (streams.tally.received - before) / (time.perf_counter() - start)


# --- Sends by the ORM ----------------------------------------------------------------------------


async def orm_sends(stage: OwnStage, plan: Plan) -> list[float]:
    async with python_peer(stage, "orm_server", database_url=stage.urls()[0] or "") as port:
        posts = await Posts.connect("127.0.0.1", port, clients=128)
        requests = list(orm_requests(port))
        try:
            await posts.closed_loop(lambda number: requests[number], seconds=1)
            rates = []
            for _ in range(plan.repeats):
                result = await posts.closed_loop(lambda number: requests[number], seconds=plan.seconds)
                if result.errors:
                    sys.exit(f"the peer fails: {result.errors[:3]}")
                rates.append(result.per_second)
            return rates
        finally:
            posts.close()


def orm_requests(port: int) -> Iterator[bytes]:
    now = int(time.time())
    for number in range(128):
        token = jwt.encode({"sub": f"sender{number}", "iat": now, "exp": now + 3600}, SECRET, algorithm="HS256")
        body = json.dumps({"recipient_id": f"recipient{number}", "content": "x" * 40}).encode()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        yield encode_request("POST", "/api/v1/messages/send", f"127.0.0.1:{port}", headers, body)


# --- Which there are -----------------------------------------------------------------------------


def why_missing(*modules: str) -> str:
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    return f"{', '.join(absent)} not installed (make bench-deps)" if absent else ""


MISSING = {
    "nchan": ""
    if shutil.which("nginx") and NCHAN_MODULE.exists()
    else "nginx with nchan not installed (make test-deps)",
    "tutorial": why_missing("sse_starlette"),
    "orm": why_missing("sqlalchemy", "greenlet"),
}
PEERS_OF: dict[str, dict[str, Measure]] = {
    "fanout": {"nchan": delivery_of("nchan", users=STREAMS), "tutorial": delivery_of("tutorial", users=STREAMS)},
    "broadcast": {"nchan": delivery_of("nchan", users=1), "tutorial": delivery_of("tutorial", users=1)},
    "send": {"orm": orm_sends},
}
