"""Processes die, are told to go, or stand still: their clients go on elsewhere, where they were."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.faults.kit.cluster import Cluster
from tests.faults.kit.scene import Played, Scale
from tests.faults.kit.vitals import read_vitals
from tests.faults.scenarios.calm import CHANGES
from tests.faults.scenarios.steps import (
    ends,
    gather_on,
    longest_silence,
    metric,
    most_within,
    until_connected,
)
from tests.history.records import Outcome, Stream
from tests.history.run import Run
from tests.support.servers import new_user

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

GRACE_SECONDS = 2.0  # of a head check, and of this machine
HELD_SECONDS = 0.3  # sends wait for so long; the server gives a lock up after 2 s
BLOCK_SECONDS = 5.0
WINDOW_SECONDS = 0.5


@pytest.mark.scenario(
    "F36",
    "A process is killed between commit and publish",
    "delivered within a heartbeat by the others",
    gate=True,
    seconds=35,
)
async def test_a_process_is_killed_between_commit_and_publish(scene):
    """Protocol 2.4, 5.4: nobody was told; head checks find it, and the sender's repeat finds the message."""
    cluster = await scene.start(failpoint="hup:before_publish:kill")
    doomed = cluster.servers[0]
    deaths: list[float] = []

    async def faults(run: Run) -> None:
        await asyncio.sleep(1)
        for _ in range(int(scene.scale.pick(gate=1, whole=2))):
            await split_devices(run, cluster)
            with scene.fault("killed after a commit"):
                doomed.signal(signal.SIGHUP)
                assert await ends(doomed.process) == -signal.SIGKILL
                deaths.append(time.monotonic())
                await asyncio.sleep(1)
                await doomed.start()
            await asyncio.sleep(scene.scale.pick(gate=0, whole=6))

    # In the gate clients are back in a quarter of the time.
    played = await scene.play(faults, hurry=scene.scale.pick(gate=4, whole=1), tail_seconds=1, **CHANGES)
    delays = delays_of_what_nobody_was_told(played, deaths)
    scene.notes["committed and not published"] = len(delays)
    assert delays, "nothing was committed and left unpublished"
    assert any(delays.values()), "the survivor had nobody to deliver to"
    slowest = max(itertools.chain(*delays.values()), default=0.0)
    scene.notes["delivered by the survivor after, s"] = round(slowest, 1)
    assert slowest < scene.scale.heartbeat_seconds + GRACE_SECONDS


async def split_devices(run: Run, cluster: Cluster) -> None:
    """Let every user have a device with each process."""
    since = len(run.history.events)
    for place, server in enumerate(cluster.servers):
        some = run.devices[place :: len(cluster.servers)]
        run.rest.ports[:] = [server.port]
        for device in some:
            device.reconnect()
        await until_connected(run, some, since=since)
    run.rest.ports[:] = cluster.ports


def delays_of_what_nobody_was_told(played: Played, deaths: list[float]) -> dict[str, list[float]]:
    """Per message that a dying process committed: from its death to each hand-over by the survivor's streams."""
    history = played.history
    unknown: dict[tuple[str, str], float] = {}
    for each in history.attempts:
        if each.outcome is Outcome.UNKNOWN:
            unknown.setdefault((each.sender, each.key), each.ended_at)
    # A repeat that is answered with 200 finds a message that somebody else has made.
    died_with = {
        each.message_id: unknown[each.sender, each.key]
        for each in history.attempts
        if each.status == 200 and (each.sender, each.key) in unknown
    }
    handed: dict[str, list[float]] = {message_id: [] for message_id in died_with if message_id is not None}
    for event in history.events:
        if event.name != "new_message" or event.message is None or event.message.id not in handed:
            continue
        asked_at = died_with[event.message.id]
        death = min(deaths, key=lambda at: abs(at - asked_at))
        if history.streams[event.stream].opened_at < death < event.at:
            handed[event.message.id].append(event.at - death)
    return handed


def a_thousand(scale: Scale) -> dict[str, Any]:
    """500 users with two devices each, all on one process; fewer sends, on a machine that they keep busy.

    For the gate 40 devices: a drain of 80 takes twice as long.
    """
    if scale.name == "whole":
        return {"users": 500, "sends_per_second": 80}
    return {"users": 20, "groups": 5, "direct_pairs": 10, "hurry": 2}


@asynccontextmanager
async def sends_held(cluster: Cluster, users: Sequence[str]) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Make every send to these users wait; gives what lets them go on."""
    holder = await cluster.postgres.connect()
    try:
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("UPDATE inbox_heads SET head = head WHERE user_id = ANY ($1)", list(users))
        yield transaction.rollback
    finally:
        holder.terminate()


@pytest.mark.scenario(
    "F37",
    "A process with 1,000 streams and sends in flight is killed",
    "all are back with the others in seconds, spread; what was in flight is there once",
    seconds=20,
    pictured=True,
)
async def test_a_process_with_a_thousand_streams_is_killed(scene):
    """Protocol 4.1, 5.1, 2.4: every client waits for its own `retry:`, and goes on where it was."""
    cluster = await scene.start()
    doomed, other = cluster.servers
    came_back: list[float] = []
    told: list[float] = []

    async def faults(run: Run) -> None:
        await gather_on(run, doomed.port)
        assert (await read_vitals(doomed)).streams == len(run.devices)
        with scene.fault("killed"):
            async with sends_held(cluster, run.plan.users):
                await asyncio.sleep(HELD_SECONDS)
                before, killed_at = len(run.history.streams), time.monotonic()
                seen = len(run.history.events)
                told.extend(retries_of(run.history.streams[-len(run.devices) :]))
                doomed.kill()
            run.rest.ports[:] = [other.port]  # as a proxy that has noticed
            await until_connected(run, run.devices, since=seen)
            took = time.monotonic() - killed_at
            await doomed.start()
        run.rest.ports[:] = [doomed.port, other.port]
        came_back.extend(stream.opened_at - killed_at for stream in run.history.streams[before:])
        scene.notes["back after, s"] = round(took, 1)

    played = await scene.play(faults, **a_thousand(scene.scale), **CHANGES)
    scene.notes["sends in flight"] = in_flight = sum(
        each.outcome is Outcome.UNKNOWN for each in played.history.attempts
    )
    assert in_flight > 0, "no send was in flight"
    assert len(told) == len(played.history.devices)
    share = most_within(told, WINDOW_SECONDS) / len(told)
    scene.notes["most told the same half second, share"] = round(share, 3)
    scene.notes["most back in the same half second, share"] = round(
        most_within(came_back, WINDOW_SECONDS) / len(told), 3
    )
    # `retry:` is drawn from three seconds: a sixth of a thousand comes in each half one. When they do come is
    # also a matter of how the machine lets a thousand clients run.
    assert share < scene.scale.pick(gate=0.9, whole=0.25)


@pytest.mark.scenario(
    "F38",
    "SIGTERM with 1,000 streams and sends in flight",
    "exit code 0 in 15 s; nothing is cut short; streams leave and come back one after the other",
    gate=True,
    seconds=20,
)
async def test_a_process_with_a_thousand_streams_is_told_to_go(scene):
    """Protocol 7.1, 5.1: each stream is told when to come back; what is in flight is answered."""
    cluster = await scene.start()
    leaving, staying = cluster.servers
    ada, bob = new_user("ada"), new_user("bob")
    left: list[Stream] = []

    async def faults(run: Run) -> None:
        await gather_on(run, leaving.port)
        for device in run.devices:
            device._retry_seconds = 90.0  # who is not told otherwise stays away
        await leaving.know(ada, bob)
        await leaving.send(ada, bob, "opens the conversation")
        left.extend(run.history.streams[-len(run.devices) :])
        seen = len(run.history.events)
        async with sends_held(cluster, [bob]) as let_go:
            in_flight = asyncio.create_task(leaving.send(ada, bob, "in flight"))
            await asyncio.sleep(HELD_SECONDS)
            run.rest.ports[:] = [staying.port]
            with scene.fault("told to go"):
                told_at = time.monotonic()
                going = asyncio.create_task(leaving.terminate(20))
                await asyncio.sleep(HELD_SECONDS)
                assert not in_flight.done()
                await let_go()
                assert (await in_flight)["content"] == "in flight"
                with pytest.raises(ConnectionRefusedError):
                    await asyncio.open_connection("127.0.0.1", leaving.port)
                assert await going == 0
                took = time.monotonic() - told_at
        await until_connected(run, run.devices, since=seen)
        assert took < 15
        assert max(stream.ended_at for stream in left) - told_at < 10
        scene.notes["gone after, s"] = round(took, 1)
        await leaving.start()
        run.rest.ports[:] = [leaving.port, staying.port]

    played = await scene.play(faults, tail_seconds=0.5, **a_thousand(scene.scale))
    # A drain takes 5 s, and `retry:` is drawn from 3.5 s: a tenth, and a seventh, in each half second. The 40 devices
    # of the gate leave in 2 s, and come back in half the time.
    most_share = scene.scale.pick(gate=0.7, whole=0.25)
    for what, times in (("leave", [each.ended_at for each in left]), ("are told to stay away", retries_of(left))):
        assert len(times) == len(left)
        share = most_within(times, WINDOW_SECONDS) / len(left)
        scene.notes[f"most that {what} the same half second, share"] = round(share, 3)
        assert share < most_share, f"all {what} at once"
    back_share = most_within(pauses_after(played, left), WINDOW_SECONDS) / len(left)
    scene.notes["most that stay away the same half second, share"] = round(back_share, 3)


def retries_of(streams: Sequence[Stream]) -> list[float]:
    """After how many seconds each of these was told, last, to come back."""
    return [stream.retry_seconds for stream in streams if stream.retry_seconds is not None]


def pauses_after(played: Played, streams: Sequence[Stream]) -> list[float]:
    """How long devices stayed away after the end of each of these streams, in seconds."""
    following: dict[str, float] = {}
    ends_at = {stream.device: stream.ended_at for stream in streams}
    for stream in played.history.streams:
        if stream.opened_at >= ends_at[stream.device]:
            following.setdefault(stream.device, stream.opened_at)
    return [following[device] - ended_at for device, ended_at in ends_at.items()]


@pytest.mark.scenario(
    "F42",
    "The event loop of a process stands still for 5 s",
    "told in log and metrics; no client is dropped; what waited is answered then",
    seconds=20,
)
async def test_the_event_loop_stands_still(scene):
    """Protocol 7.4, 1.2: late, and not lost; clients wait for longer than that."""
    cluster = await scene.start(block_seconds=BLOCK_SECONDS, app_env="development")
    blocked = cluster.servers[0]

    async def faults(_run: Run) -> None:
        await asyncio.sleep(2)
        with scene.fault("stands still"):
            blocked.signal(signal.SIGUSR2)
            await asyncio.sleep(BLOCK_SECONDS)
        await asyncio.sleep(4)

    played = await scene.play(faults, answer_seconds=BLOCK_SECONDS + GRACE_SECONDS)
    streams, devices = len(played.history.streams), len(played.history.devices)
    assert streams == devices, "a client came back, so it was dropped"
    assert longest_silence(played) < scene.scale.heartbeat_seconds + BLOCK_SECONDS + GRACE_SECONDS
    assert "event_loop_blocked" in blocked.log.read_text()
    assert "event_loop_blocked" not in cluster.servers[1].log.read_text()
    assert await metric(blocked, "gapless_event_loop_lag_seconds_bucket", le="2.5") < await metric(
        blocked, "gapless_event_loop_lag_seconds_count"
    )
