"""New versions and restarts, behind proxies and beside older ones: nobody notices but by waiting."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.faults.kit.cluster import Cluster
from tests.faults.kit.scene import Played, Scene
from tests.faults.kit.vitals import SPARE_DESCRIPTORS, SPARE_MEGABYTES, descriptors_of, resident_megabytes
from tests.faults.scenarios.calm import Span, delivery_p99
from tests.faults.scenarios.steps import longest_silence, metric, port_of, until_connected
from tests.history.run import Run
from tests.support.commands import children_of, eventually, running
from tests.support.ports import free_port
from tests.support.processes import client_ports
from tests.support.proxies import needs, replaced, start_proxy
from tests.support.servers import API_KEY, JWT_SECRET, token_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

CHECK_SECONDS = 2.5  # until HAProxy has seen that a server is back
EVENT_SECONDS = 1.0  # from a send to its event


@asynccontextmanager
async def proxies_in_front(cluster: Cluster, *programs: str, edit=str) -> AsyncIterator[None]:
    """Let clients come through these proxies alone, each with all servers behind it."""
    async with AsyncExitStack() as stack:
        for program in programs:
            folder = cluster.folder / program
            folder.mkdir()
            proxy = await start_proxy(program, folder, cluster.servers, edit=edit)
            stack.callback(proxy.stop)
            cluster.front_ports.append(proxy.http_port)
            cluster.before_leak_check.append(proxy.stop)
        yield


async def roll(scene: Scene, program: str) -> Played:
    """Restart one process after the other, round after round, behind this proxy."""
    cluster = await scene.start()

    async def faults(_run: Run) -> None:
        await asyncio.sleep(1)
        for _ in range(int(scene.scale.pick(gate=1, whole=5))):
            for server in cluster.servers:
                with scene.fault("restarted"):
                    assert await server.terminate() == 0
                    await server.start()
                await asyncio.sleep(CHECK_SECONDS)

    async with proxies_in_front(cluster, program):
        played = await scene.play(faults)
    last = {stream.device: stream for stream in played.history.streams}  # may have been opening when the run ended
    statuses = {
        stream.status for stream in played.history.streams if stream.status or stream is not last[stream.device]
    }
    assert statuses == {200}, "EventSource would have given up"
    assert longest_silence(played) < scene.scale.heartbeat_seconds + 5, "something holds events back"
    return played


@needs["nginx"]
@pytest.mark.scenario(
    "F39a",
    "Both processes restarted in turn behind nginx, five times",
    "no stream is refused for ever",
    seconds=110,
    pictured=True,
)
async def test_a_rolling_restart_behind_nginx(scene):
    """Protocol 4.7, 7.1, 7.4: with the configuration of deploy/."""
    await roll(scene, "nginx")


@needs["haproxy"]
@pytest.mark.scenario(
    "F39b",
    "Both processes restarted in turn behind HAProxy, five times",
    "no stream is refused for ever",
    seconds=110,
)
async def test_a_rolling_restart_behind_haproxy(scene):
    """Protocol 4.7, 7.1, 7.4: with the configuration of deploy/."""
    await roll(scene, "haproxy")


@pytest.mark.scenario(
    "F40", "One of two processes is of a later version", "its fields and events are no trouble to anybody"
)
async def test_a_later_version_beside_this_one(scene):
    """Protocol 3.6, 1.2: frames of this form pass, whatever is in them; others are dropped and counted."""
    cluster = await scene.start(1, app_env="development")
    await cluster.add_server(newer=1)

    async def faults(_run: Run) -> None:
        with scene.fault("two versions"):
            await asyncio.sleep(scene.scale.pick(gate=3, whole=12))

    played = await scene.play(faults, changes_share=0.1)
    names = {event.name for event in played.history.events}
    assert {"new_message", "message_edited", "mood_changed"} <= names
    assert "Mood.Of-2027" not in names
    dropped = [await metric(server, "gapless_frames_dropped_total") for server in cluster.servers]
    assert min(dropped) > 0
    logs = "".join(server.log.read_text() for server in cluster.servers)
    assert "failed" not in logs


@pytest.mark.scenario("F49", "One of four workers is killed", "only its streams reconnect")
async def test_a_worker_is_killed(scene):
    """Protocol 5.1: `gapless serve --workers 4`; the others and their clients hear nothing of it."""
    cluster = await scene.start(0)
    cluster.front_ports, cluster.other_processes = [free_port()], 4
    settings = {
        "DATABASE_URL": cluster.postgres.url,
        "REDIS_URL": cluster.valkey.url,
        "AUTH_JWT_SECRET": JWT_SECRET,
        "SERVER_API_KEY": API_KEY,
        "HEARTBEAT_SECONDS": scene.scale.heartbeat_seconds,
        "PORT": cluster.front_ports[0],
    }
    async with running(cluster.folder / "workers", "serve", "--workers", "4", **settings) as supervisor:
        workers = await eventually(lambda: four(children_of(supervisor.pid)))
        await eventually(lambda: supervisor.log.read_text().count('"serving"') == 4, seconds=40)

        async def faults(run: Run) -> None:
            await asyncio.sleep(2)
            theirs = client_ports(workers[0], cluster.front_ports[0])
            hit = [device for device in run.devices if port_of(device) in theirs]
            spared = {device.name for device in run.devices} - {device.name for device in hit}
            assert 0 < len(hit) < len(run.devices)
            streams, seen = len(run.history.streams), len(run.history.events)
            with scene.fault("a worker is killed"):
                os.kill(workers[0], signal.SIGKILL)
                await until_connected(run, hit, since=seen)
                await eventually(lambda: four(children_of(supervisor.pid)))
            await asyncio.sleep(2)
            came_back = {stream.device for stream in run.history.streams[streams:]}
            assert came_back & spared == set(), "others lost their stream, too"
            scene.notes["streams of the worker"] = len(hit)

        before = {pid: held_by(pid, cluster) for pid in workers}
        await scene.play(faults)
        assert supervisor.log.read_text().count("worker_ended") == 1
        now = children_of(supervisor.pid)
        assert set(workers[1:]) < set(now)
        await eventually(lambda: not any(client_ports(pid, cluster.front_ports[0]) for pid in now))
        for pid in workers[1:]:
            (descriptors, megabytes), (descriptors_then, megabytes_then) = before[pid], held_by(pid, cluster)
            assert descriptors_then <= descriptors + SPARE_DESCRIPTORS
            assert megabytes_then <= megabytes + SPARE_MEGABYTES
        assert await supervisor.stop() == 0


def held_by(pid: int, cluster: Cluster) -> tuple[int, float]:
    """How many descriptors, and megabytes."""
    return descriptors_of(pid, cluster.postgres.url), resident_megabytes(pid)


def four(children: list[int]) -> list[int]:
    return children if len(children) == 4 else []


@needs["nginx"]
@needs["haproxy"]
@pytest.mark.scenario(
    "F62",
    "Proxies that end what is idle for 15 s, buffer where nobody says otherwise, and compress",
    "no stream ends; none is compressed, also where that is asked for; events come at once",
    seconds=45,
)
async def test_proxies_with_little_patience(scene):
    """Protocol 7.4, 4.1: heartbeats keep an idle stream open, and headers tell proxies to let it through."""
    cluster = await scene.start()
    calm = Span()

    def impatient(text: str) -> str:
        if "proxy_read_timeout" in text:
            times = {"proxy_read_timeout 60s;": "proxy_read_timeout 15s; send_timeout 15s;"}
            return replaced(text, times | {"proxy_buffering off;": "proxy_buffering on;"})
        return replaced(text, {"timeout client 60s": "timeout client 15s", "timeout server 60s": "timeout server 15s"})

    async def faults(run: Run) -> None:
        with calm:
            for port in cluster.front_ports:
                head = await head_of_a_stream(port, run.plan.users[0])
                assert head.startswith("http/1.1 200 ")
                assert "content-encoding" not in head
            await asyncio.sleep(scene.scale.pick(gate=4, whole=33))

    # Four pairs talk now and then; all the others are idle to the end.
    shape = {"users": 40, "groups": 0, "direct_pairs": 4, "sends_per_second": 2}
    async with proxies_in_front(cluster, "nginx", "haproxy", edit=impatient):
        played = await scene.play(faults, **shape)
    streams, devices = len(played.history.streams), len(played.history.devices)
    assert streams == devices, "an idle stream was ended"
    p99, slowest = delivery_p99(played, calm), played.slowest_delivery()
    scene.notes["p99 of deliveries, s"] = round(p99, 3)
    assert p99 < EVENT_SECONDS
    assert slowest < 3 * EVENT_SECONDS


async def head_of_a_stream(port: int, user: str) -> str:
    """Ask for a compressed stream, and wait until it says, in plain text, that it is open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(
            f"GET /api/v1/messages/stream?user_id={user} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Authorization: Bearer {token_for(user)}\r\nAccept-Encoding: gzip, deflate, br\r\n\r\n".encode()
        )
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readuntil(b"event: connected\n")
        return head.decode().lower()
    finally:
        writer.transport.abort()
