"""Clients that read slowly, not at all, or have gone without a word: they lose nothing and cost nobody anything."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import orjson
import pytest

from tests.faults.kit.cluster import Cluster
from tests.faults.kit.link import Link
from tests.faults.kit.namespace import OtherHost
from tests.faults.kit.reader import Reader
from tests.faults.kit.vitals import count, leaks, read_vitals, vitals_of
from tests.faults.scenarios.calm import Span, no_send_waited, nothing_came_late
from tests.history.run import Run
from tests.support.commands import Running, running
from tests.support.servers import JWT_SECRET, Server, new_user

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

CLOSED_SECONDS = 10.0 + 5.0  # docs/protocol.md, 7.3: closed, then cut
FREED_SECONDS = 60.0
TEXT = "x" * 4000
LONG_TEXT = "x" * 9000
READERS, SENDS_PER_SECOND = 12, 200


@pytest.mark.scenario(
    "F50",
    "Clients read 100 bytes a second while 200 messages a second come for them",
    "they are closed, memory stays bounded, others are served as fast as before, or nearly; nothing is lost",
    gate=True,
    seconds=35,
)
async def test_slow_readers(scene):
    """Protocol 7.3: waiting events are bounded, then forgotten and read again; who does not read is closed."""
    cluster = await scene.start()
    is_whole = scene.scale.name == "whole"
    messages = int(scene.scale.pick(gate=200, whole=500))
    readers = [Reader(new_user("slow")) for _ in range(READERS)]
    grown_megabytes, closed = 0.0, 0
    calm, slow = Span(), Span()

    async def faults(run) -> None:
        nonlocal grown_megabytes, closed
        writer = new_user("writer")
        group = await _group(run, writer, [reader.user for reader in readers])
        for reader in readers:
            await reader.open(run.rng.choice(cluster.ports))
            await reader.until_connected()
        with calm:
            await asyncio.sleep(scene.scale.pick(gate=0.5, whole=4))  # what grows once has grown then
        before = await vitals_of(cluster)
        with scene.fault("clients read 100 bytes a second"), slow:
            trickling = [asyncio.ensure_future(reader.trickle(bytes_per_second=100)) for reader in readers]
            try:
                contents = await _post_quickly(run, writer, group, messages)
                now = await vitals_of(cluster)
                grown_megabytes = max(n.megabytes - b.megabytes for n, b in zip(now, before, strict=True))
                if is_whole:
                    await asyncio.sleep(CLOSED_SECONDS)
                    closed = await count(cluster, "slow_clients_closed")
            finally:
                for task in trickling:
                    task.cancel()
                await asyncio.gather(*trickling, return_exceptions=True)
        assert max(len(reader.seqs) for reader in readers) < messages / 2
        await asyncio.gather(*(reader.read_all(run.rng.choice(cluster.ports), messages) for reader in readers))
        for reader in readers:
            reader.cut()
            _has_all(reader, contents)

    try:
        played = await scene.play(faults)
    finally:
        for reader in readers:
            reader.cut()
    scene.notes["MB grown by slow readers"] = round(grown_megabytes, 1)
    unbounded_megabytes = messages * READERS * len(LONG_TEXT) / len(cluster.servers) / 2**20
    assert grown_megabytes < unbounded_megabytes / 2, "what nobody reads is kept"
    slowest = played.slowest_delivery()
    assert slowest < scene.scale.heartbeat_seconds, "others noticed"
    if is_whole:  # the gate has no time for it, and shares the machine with other tests
        assert closed >= READERS, "who did not read was kept"
        no_send_waited(scene, played, calm, slow)
        nothing_came_late(scene, played, calm, slow)


async def _post_quickly(run: Run, writer: str, group: str, messages: int) -> list[str]:
    """Send so many long texts at the pace of the row; gives them in the order that they got."""
    sends = []
    for number in range(messages):
        body = {"conversation_id": group, "content": f"{number} {LONG_TEXT}"}
        sends.append(asyncio.ensure_future(run.rest.insist("POST", "/messages/send", writer, body)))
        await asyncio.sleep(1 / SENDS_PER_SECOND)
    answers = await asyncio.gather(*sends)
    assert {status for status, _ in answers} <= {200, 201}
    return [answer["content"] for _, answer in sorted(answers, key=lambda one: one[1]["seq"])]


def _has_all(reader: Reader, contents: Sequence[str]) -> None:
    """Once each, in order, and without having been told to reload."""
    assert reader.seqs == list(range(1, len(contents) + 1))
    assert reader.contents == contents
    assert reader.reloads == []


@pytest.mark.scenario(
    "F51",
    "Client programs are stopped, with and without messages for them",
    "dropped once they are behind, kept while they are not; on they go without a gap",
    seconds=50,
)
async def test_stopped_clients(scene):
    """Protocol 7.3, 5.1: two `gapless tail`, stopped as a laptop's lid or a debugger would."""
    cluster = await scene.start()
    messages = int(scene.scale.pick(gate=300, whole=800))
    seen: dict[str, list[str]] = {}

    async def faults(run) -> None:
        ada, busy, quiet = new_user("ada"), new_user("busy"), new_user("quiet")
        for user in (ada, busy, quiet):
            await run.rest.insist("GET", "/users/me", user)
        server = cluster.servers[0]
        base = (await read_vitals(server)).streams
        async with _tail(cluster, busy) as one, _tail(cluster, quiet) as other:
            await asyncio.gather(one.opened.wait(), other.opened.wait())
            with scene.fault("two clients are stopped"):
                for tail in (one, other):
                    os.kill(tail.command.pid, signal.SIGSTOP)
                try:
                    for number in range(messages):
                        await server.send(ada, busy, f"{number} {TEXT}")
                    await server.send(ada, quiet, "only one")
                    # The one that is behind goes; the other owes nobody anything and stays.
                    await _until_streams(server, base + 1, within_seconds=CLOSED_SECONDS + 10)
                finally:
                    for tail in (one, other):
                        os.kill(tail.command.pid, signal.SIGCONT)
            async with asyncio.timeout(30):
                await asyncio.gather(one.until(messages), other.until(1))
            seen.update(busy=one.contents, quiet=other.contents)

    await scene.play(faults)
    assert seen["quiet"] == ["only one"]
    assert [content.split()[0] for content in seen["busy"]] == [str(number) for number in range(messages)]


@pytest.mark.scenario(
    "F52",
    "The host of 20 clients vanishes without a word",
    "their streams are freed within 60 s; back again, nothing is lost",
    seconds=75,
)
async def test_vanished_clients(scene):
    """Protocol 7.3, 5.1: no FIN and no RST comes; the kernel gives up what is not acknowledged for 30 s."""
    cluster = await scene.start(host="0.0.0.0", heartbeat_seconds=2)
    before = await vitals_of(cluster)
    server = cluster.servers[0]
    ada = new_user("ada")
    async with _far_away(server.port) as far:
        scene.notes["injected by"] = far.how
        # Half of them hear nothing but heartbeats; where only their reading can be stopped, all get messages.
        readers = [
            Reader(new_user("far"), host=far.address, new_socket=far.new_socket)
            for _ in range(int(scene.scale.pick(gate=6, whole=20)))
        ]
        busy = readers[::2] if far.is_gone_entirely else readers
        try:
            await server.know(ada, *(reader.user for reader in readers))
            for reader in readers:
                await reader.open(far.port)
                await reader.until_connected()
            assert (await read_vitals(server)).streams == len(readers)
            far.vanish()
            began_at = time.monotonic()
            for number in range(80):
                await asyncio.gather(*(server.send(ada, reader.user, f"{number} {TEXT}") for reader in busy))
            await asyncio.gather(*(server.send(ada, reader.user, "the last") for reader in readers))
            await _until_streams(server, 0, within_seconds=FREED_SECONDS - (time.monotonic() - began_at))
            scene.notes["freed after s"] = round(time.monotonic() - began_at, 1)
            far.appear()
            for reader in readers:
                await reader.open(far.port, buffer_bytes=2**18)  # as its watchdog would
                expected = ["the last"] if reader not in busy else [*(f"{n} {TEXT}" for n in range(80)), "the last"]
                await reader.read_all(far.port, len(expected))
                _has_all(reader, expected)
        finally:
            for reader in readers:
                reader.cut()
    assert await leaks(cluster, before) == []


class _Tail:
    """A `gapless tail` and what it has printed."""

    def __init__(self, command: Running) -> None:
        self.command = command
        self.opened = asyncio.Event()
        self.contents: list[str] = []
        self._more = asyncio.Event()

    async def read(self) -> None:
        assert self.command.process.stdout is not None
        while line := await self.command.process.stdout.readline():
            event = orjson.loads(line)
            if event["event"] == "connected":
                self.opened.set()
            elif event["event"] == "new_message":
                self.contents.append(event["data"]["content"])
                self._more.set()

    async def until(self, count: int) -> None:
        while len(self.contents) < count:
            self._more.clear()
            await self._more.wait()


@asynccontextmanager
async def _tail(cluster: Cluster, user: str) -> AsyncIterator[_Tail]:
    folder = cluster.folder / f"tail-{user}"
    url = cluster.servers[0].url
    async with running(folder, "tail", user, "--json", "--url", url, AUTH_JWT_SECRET=JWT_SECRET) as command:
        tail = _Tail(command)
        reading = asyncio.ensure_future(tail.read())
        try:
            yield tail
        finally:
            with suppress(ProcessLookupError):
                os.kill(command.pid, signal.SIGCONT)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


class _Far:
    """Where clients are that can vanish: another host, or, without the right to make one, behind a frozen link."""

    def __init__(self, place: OtherHost | Link, server_port: int) -> None:
        self.is_gone_entirely = isinstance(place, OtherHost)
        if isinstance(place, OtherHost):
            self.how, self.address, self.port = "network namespace", place.address_of_this_host, server_port
            self.new_socket, self.vanish, self.appear = place.new_socket, place.vanish, place.appear
        else:
            self.how, self.address, self.port = "frozen link", "127.0.0.1", place.port
            self.new_socket, self.vanish, self.appear = socket.socket, place.freeze, place.heal


@asynccontextmanager
async def _far_away(server_port: int) -> AsyncIterator[_Far]:
    async with AsyncExitStack() as stack:
        try:
            place: OtherHost | Link = stack.enter_context(OtherHost())
        except OSError:
            place = await stack.enter_async_context(Link(server_port))
        yield _Far(place, server_port)


async def _until_streams(server: Server, count: int, *, within_seconds: float) -> None:
    deadline = time.monotonic() + within_seconds
    while (held := (await read_vitals(server)).streams) != count:
        assert time.monotonic() < deadline, f"{held} streams are held, not {count}"
        await asyncio.sleep(0.25)


async def _group(run, owner: str, members: Sequence[str]) -> str:
    for user in (owner, *members):
        await run.rest.insist("GET", "/users/me", user)
    body = {"kind": "group", "title": "a group", "member_ids": list(members)}
    status, conversation = await run.rest.insist("POST", "/conversations", owner, body)
    assert status == 201, conversation
    return conversation["id"]
