"""The machine gives too little: descriptors, memory, processor, room for the log."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

import aiohttp
import pytest

from tests.faults.kit.cluster import Cluster
from tests.faults.kit.vitals import read_vitals
from tests.faults.scenarios.calm import Span, nothing_came_late
from tests.faults.scenarios.steps import metric
from tests.history.run import Run
from tests.support.processes import busy_loops, cpu_seconds, limited, virtual_bytes
from tests.support.servers import Server, new_user, token_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

FILES = 256
STREAMS, SILENT = 200, 300  # what a crowd opens
SILENT_SECONDS = 10.0  # after which the server cuts who says nothing
AT_ONCE_SECONDS = 3.0  # with what a busy machine adds
TALKERS = 100
ROUNDS = 5
PARTS = ("sum", "count")  # of a metric


@pytest.mark.scenario(
    "F43",
    "A process may open 256 files; 200 streams are asked for, then 300 clients connect and say nothing",
    "turned away at once, in good order; the streams it had go on; who is connected is answered",
    seconds=15,
)
async def test_descriptors_run_out(scene):
    """Protocol 4.7: a stream too many is 200, `retry:` and the end; whoever says nothing is not let in."""
    cluster = await scene.start()
    poor = cluster.servers[0]
    crowd = [new_user("crowd") for _ in range(STREAMS)]
    calm, exhausted = Span(), Span()

    async def faults(run: Run) -> None:
        with calm:
            await asyncio.sleep(2)
        held = (await read_vitals(poor)).streams
        assert held > 0
        with scene.fault("256 files"), exhausted, limited(poor.pid, resource.RLIMIT_NOFILE, FILES):
            async with AsyncExitStack() as stack:
                answers = [await ask_for_stream(stack, poor, user) for user in crowd]
                turned_away = [answer for answer in answers if b"event: connected" not in answer]
                scene.notes["turned away"] = len(turned_away)
                assert all(b" 200 OK\r\n" in answer for answer in answers)
                assert all(b"\r\nretry: 1" in answer for answer in turned_away)
                assert 50 < len(turned_away) < STREAMS, "none, or all, were turned away"
                assert (await poor.call("GET", "/health"))[0] == 200
                assert (await poor.call("GET", "/users/me", user=crowd[0]))[0] == 200
            async with AsyncExitStack() as stack:
                probe = await connect(stack, poor)
                assert await is_healthy(*probe)
                silent = [await connect(stack, poor) for _ in range(SILENT)]
                await asyncio.sleep(0.5)
                began, used = time.monotonic(), cpu_seconds(poor.pid)
                await asyncio.sleep(3)
                load = (cpu_seconds(poor.pid) - used) / (time.monotonic() - began)
                scene.notes["processor while nobody can be let in"] = round(load, 2)
                assert load < 0.6, "it does nothing but try to accept"
                assert any(reader.at_eof() for reader, _ in silent), "there were files for all"
                assert await is_healthy(*probe)
                while not await is_healthy(*await connect(stack, poor)):  # shown the door, and not left waiting
                    assert time.monotonic() - began < SILENT_SECONDS + AT_ONCE_SECONDS
                    await asyncio.sleep(0.5)
            await until_answered(poor)
            assert (await read_vitals(poor)).streams == held

    played = await scene.play(faults, users=30, groups=6, largest_group=12, direct_pairs=15, sends_per_second=40)
    streams, devices = len(played.history.streams), len(played.history.devices)
    assert streams == devices, "a stream that was there before was ended"
    nothing_came_late(scene, played, calm, exhausted)


async def is_healthy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Ask, and be answered or hung up on, but at once."""
    try:
        writer.write(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        async with asyncio.timeout(AT_ONCE_SECONDS):
            answer = await reader.readuntil(b"}")
    except (asyncio.IncompleteReadError, ConnectionError):
        return False
    return answer.startswith(b"HTTP/1.1 200 ")


async def ask_for_stream(stack: AsyncExitStack, server: Server, user: str) -> bytes:
    """Open a stream and leave it open; gives what came up to `connected`, or to the end."""
    reader, writer = await connect(stack, server)
    writer.write(
        f"GET /api/v1/messages/stream?user_id={user} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {token_for(user)}\r\n\r\n".encode()
    )
    answer = b""
    async with asyncio.timeout(10):
        while b"event: connected" not in answer and (data := await reader.read(4096)):
            answer += data
    return answer


async def connect(stack: AsyncExitStack, server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    stack.callback(hang_up, writer)
    return reader, writer


def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def until_answered(server: Server, *, seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        await server.until_healthy()


@pytest.mark.scenario(
    "F44",
    "A process gets no more memory",
    "it sheds or dies, and leaves nobody waiting; after a restart all is there",
    seconds=25,
)
async def test_memory_runs_out(scene):
    """Protocol 1.2, 2.5: what fails is not known to be committed, and is repeated by its key."""
    cluster = await scene.start()
    poor = cluster.servers[0]
    crowd = [new_user("crowd") for _ in range(TALKERS)]

    async def faults(run: Run) -> None:
        await asyncio.sleep(1)
        await asyncio.gather(*(run.rest.insist("GET", "/users/me", user) for user in crowd))
        with scene.fault("no memory"), limited(poor.pid, resource.RLIMIT_AS, virtual_bytes(poor.pid)):
            failed = await until_sends_fail(run, poor, crowd)
            await asyncio.sleep(scene.scale.pick(gate=3, whole=8))
        assert poor.process is not None
        has_died = poor.process.poll() is not None
        scene.notes |= {"sends that failed": failed, "died": str(has_died).lower()}
        if has_died:
            await poor.start()
        await until_answered(poor)
        await asyncio.sleep(2)

    await scene.play(faults)


async def until_sends_fail(run: Run, server: Server, crowd: Sequence[str]) -> int:
    """Let every client come back and many send much, again and again until it is too much; gives how many failed."""
    for _ in range(ROUNDS):
        for device in run.devices:
            device.reconnect()
        statuses = await asyncio.gather(
            *(send_much(server, *pair) for pair in zip(crowd[::2], crowd[1::2], strict=True))
        )
        if failed := sum(status not in {200, 201} for status in statuses):
            return failed
        await asyncio.sleep(0.5)
    raise AssertionError("there was memory for everything")


async def send_much(server: Server, sender: str, recipient: str) -> int:
    """Send the longest text there is, once; gives the status, 0 without an answer."""
    body = {"recipient_id": recipient, "content": "\N{GRINNING FACE}" * 10_000}
    try:
        return (await server.call("POST", "/messages/send", user=sender, json=body))[0]
    except (aiohttp.ClientError, TimeoutError):
        return 0


@pytest.mark.scenario(
    "F45",
    "Eight busy loops beside the processes, at a higher priority",
    "event loops are late; no answer takes longer than its deadline, and nothing is lost",
    seconds=25,
    pictured=True,
)
async def test_the_processor_is_taken(scene):
    """Protocol 1.2, 2.5."""
    cluster = await scene.start(app_env="development")
    lags: list[float] = []

    async def faults(_run: Run) -> None:
        await asyncio.sleep(1)
        calm = await lag_of(cluster, seconds=scene.scale.pick(gate=2, whole=4))
        for server in cluster.servers:  # the loops are above them, and still below everybody else here
            os.setpriority(os.PRIO_PROCESS, server.pid, 10)
        with scene.fault("eight busy loops"), busy_loops(8, niceness=6, at_most_seconds=30):
            lags.extend((calm, await lag_of(cluster, seconds=scene.scale.pick(gate=4, whole=10))))
        for server in cluster.servers:
            os.setpriority(os.PRIO_PROCESS, server.pid, 0)
        await asyncio.sleep(3)

    await scene.play(faults, sends_per_second=scene.scale.pick(gate=40, whole=100))
    calm, busy = lags
    scene.notes |= {"event loops late by, ms": round(busy * 1000, 1), "without the loops, ms": round(calm * 1000, 1)}
    assert busy > min(2 * calm, calm + 0.002), "nothing was taken from them"


async def lag_of(cluster: Cluster, *, seconds: float) -> float:
    """How late the event loops are in that time, on average, in seconds."""

    async def look() -> tuple[float, float]:
        name = "gapless_event_loop_lag_seconds"
        parts = [await asyncio.gather(*(metric(s, f"{name}_{part}") for s in cluster.servers)) for part in PARTS]
        return sum(parts[0]), sum(parts[1])

    late, ticks = await look()
    await asyncio.sleep(seconds)
    late_then, ticks_then = await look()
    return (late_then - late) / (ticks_then - ticks)


@pytest.mark.scenario(
    "F46", "The log's disk is full; the log's reader stops", "service goes on; lost lines are counted"
)
async def test_nobody_takes_the_log(scene):
    """Protocol 1.2, 7.4: what is written for people never holds up what is written for clients."""
    cluster = await scene.start(0, app_env="development", log_level="debug")
    pipe = cluster.folder / "log.pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)  # full at once
    full, unread = await cluster.add_server(log_to="/dev/full"), await cluster.add_server(log_to=pipe)

    async def faults(_run: Run) -> None:
        with scene.fault("nobody reads the log"):
            await asyncio.sleep(scene.scale.pick(gate=3, whole=8))
        os.close(reader)
        with scene.fault("the log's pipe is closed"):
            await asyncio.sleep(scene.scale.pick(gate=2, whole=6))

    await scene.play(faults)
    for server, name in ((full, "full disk"), (unread, "unread pipe")):
        lost = await metric(server, "gapless_log_lines_lost_total")
        scene.notes[f"lines lost, {name}"] = int(lost)
        assert lost > 100
