"""Thousands of streams that hardly ever get anything, for a long time."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.kit.cluster import Cluster
from tests.faults.kit.crowd import Crowd, many_descriptors
from tests.faults.kit.vitals import Vitals, leaks, vitals_of
from tests.support.servers import Server, new_user

MINUTES = float(os.environ.get("SOAK_MINUTES") or 5)
SPARE_SECONDS = 240.0  # to open and to close them all
LIFETIME_MINUTES = 24.0  # docs/protocol.md, 7.2: no stream ends by itself before
KILOBYTES_PER_STREAM = 16.0  # about 4 are measured when nothing else goes on
DRIFT_SHARE, DRIFT_MEGABYTES = 0.05, 6.0
DESCRIPTORS_APART = 12  # connections to Redis and of probes, and requests that are under way
HEARTBEATS_SHARE = 0.9
CAUGHT_UP_SECONDS = 30.0
NEWS_SECONDS = 0.5  # until a client has read that its stream has ended

pytestmark = [pytest.mark.faults, pytest.mark.timeout(MINUTES * 60 * 1.2 + 2 * SPARE_SECONDS)]


@pytest.mark.scenario(
    "F63",
    f"10,000 streams at rest for {MINUTES:.0f} minutes, a message each a minute",
    "memory and descriptors stay where they are; every heartbeat and message comes",
    seconds=MINUTES * 60 + 60,
)
async def test_streams_at_rest(scene):
    """Protocol 7.2, 7.4, 1.2."""
    with many_descriptors(int(scene.scale.pick(gate=200, whole=10_000))) as count:
        cluster = await scene.start()
        empty = await vitals_of(cluster)
        with Crowd(cluster, [new_user("crowd") for _ in range(count)]) as crowd:
            await crowd.open()
            owner = new_user("owner")
            groups = await crowd.groups(owner)
            rounds: list[Round] = []
            pause_seconds = scene.scale.pick(gate=2 * scene.scale.heartbeat_seconds, whole=MINUTES * 60) / _pauses()
            heartbeats, began_at, cpu_seconds = 0, time.monotonic(), [0.0] * len(cluster.servers)
            for number in range(_pauses() + 1):
                if number > 0:
                    await _rest(crowd, pause_seconds)
                for place, group in enumerate(groups):
                    await cluster.servers[place % len(cluster.servers)].post(owner, group, f"{number}")
                await crowd.until_caught_up(seconds=CAUGHT_UP_SECONDS, brings_back=True)
                if number == 0:  # what is made once has been made now
                    heartbeats, began_at = crowd.tally("heartbeats"), time.monotonic()
                    cpu_seconds = [_cpu_seconds(server) for server in cluster.servers]
                rounds.append(await _look(cluster, crowd))
            seconds = time.monotonic() - began_at
            heartbeats = crowd.tally("heartbeats") - heartbeats
            busy = [_cpu_seconds(server) - was for server, was in zip(cluster.servers, cpu_seconds, strict=True)]
            received, found, returned = crowd.tally("received"), crowd.faults(), crowd.returned
            ended = returned + crowd.ended
        assert received == count * len(rounds)
        assert found.pop("ended", 0) == ended
        assert found == {}
        if seconds < LIFETIME_MINUTES * 60:
            assert ended == 0
        _judge(empty, rounds, count)
        expected = count * seconds / scene.scale.heartbeat_seconds
        assert heartbeats > expected * HEARTBEATS_SHARE
        first, last = rounds[0].vitals, rounds[-1].vitals
        scene.notes |= {
            "streams": count,
            "minutes": round(seconds / 60, 1),
            "KB a stream": round(
                max(_kilobytes_per_stream(each, was) for each, was in zip(first, empty, strict=True)), 1
            ),
            "MB after the first round": round(max(each.megabytes for each in first)),
            "MB at the end": round(max(each.megabytes for each in last)),
            "share of a core": round(max(busy) / seconds, 3),
            "ended by age and back": returned,
        }
        assert await leaks(cluster, empty) == []


@dataclass(frozen=True, slots=True)
class Round:
    """What was held after a message to all. `missing`: streams that were ended meanwhile, as far as clients know."""

    vitals: list[Vitals]
    missing: int


def _pauses() -> int:
    """One a minute, between messages to all."""
    return max(1, round(MINUTES))


async def _rest(crowd: Crowd, seconds: float) -> None:
    """Do nothing but bring back what has ended, as its client would."""
    ends_at = time.monotonic() + seconds
    while (rest := ends_at - time.monotonic()) > 0:
        await asyncio.sleep(min(rest, 1))
        await crowd.bring_back_ended()


async def _look(cluster: Cluster, crowd: Crowd) -> Round:
    await crowd.bring_back_ended()
    vitals = await vitals_of(cluster)
    await asyncio.sleep(NEWS_SECONDS)
    return Round(vitals, crowd.ended)


def _judge(empty: list[Vitals], rounds: list[Round], count: int) -> None:
    """Streams and descriptors are as many as they must be, in every round; memory does not grow from the first."""
    for each in rounds:
        streams = sum(now.streams for now in each.vitals)
        assert count - each.missing <= streams <= count
        for process, (now, first, was) in enumerate(zip(each.vitals, rounds[0].vitals, empty, strict=True)):
            apart = abs(now.descriptors - was.descriptors - now.streams)
            assert apart <= DESCRIPTORS_APART, f"process {process}: {apart} descriptors are not accounted for"
            drift = now.megabytes - first.megabytes
            most = first.megabytes * DRIFT_SHARE + DRIFT_MEGABYTES
            assert drift < most, f"process {process} has grown by {drift:.0f} MB"
            assert _kilobytes_per_stream(first, was) < KILOBYTES_PER_STREAM + 40 * 1024 / max(1, first.streams)


def _kilobytes_per_stream(now: Vitals, empty: Vitals) -> float:
    return (now.megabytes - empty.megabytes) * 1024 / max(1, now.streams)


def _cpu_seconds(server: Server) -> float:
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
