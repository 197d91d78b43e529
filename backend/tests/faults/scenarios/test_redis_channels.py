"""Channels that strangers write to, and that are subscribed to and given up without end."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from tests.faults.kit.vitals import count
from tests.faults.scenarios.calm import Span, no_send_failed, nothing_came_late
from tests.faults.scenarios.redis_watch import is_back, untouched
from tests.history.connection import Connection
from tests.history.device import Device
from tests.history.run import Run

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

SETTLED_SECONDS = 10.0
CANARY = b"c4n4ry"
MESSAGE = b'event: new_message\ndata: {"content":"' + CANARY + b'"}\n\n'
# None of them is a frame; what else is none, and why, is in hardening/test_poison.py.
NOT_FRAMES = [
    CANARY,
    b'{"type":"new_message","content":"' + CANARY + b'"}',
    bytes(range(256)) * 8 + CANARY,
    b"event: typing_status\ndata: " + CANARY * 900_000 + b"\n\n",
    b"event: typing_status\ndata: 1\r\ndata: " + CANARY + b"\n\n",
    b"event: typing_status\ndata: 1\n\nevent: typing_status\ndata: " + CANARY + b"\n\n",
    b"event: typing_status\ndata: \0" + CANARY + b"\n\n",
    b"id: a\n" + MESSAGE,
]


@pytest.fixture
def shown(monkeypatch) -> list[bytes]:
    """What devices were sent around each canary, before anybody reads it as events; and a message, as a proof."""
    found: list[bytes] = []
    ends: dict[Connection, bytes] = {}
    read = Connection.data_received

    def look(connection: Connection, data: bytes) -> None:
        seen = ends.get(connection, b"") + data
        ends[connection] = seen[1 - len(CANARY) :]
        if CANARY in seen or (not found and b"new_message" in seen):
            found.append(seen)
        read(connection, data)

    monkeypatch.setattr(Connection, "data_received", look)
    return found


@pytest.mark.scenario(
    "F15",
    "Strangers publish poison on users' channels",
    "each payload that is no frame is dropped and counted; no stream ends, none is sent any of it; nothing is late",
    seconds=30,
)
async def test_strangers_publish_poison(scene, shown):
    """Protocol 3.6: neither what is no frame, nor what is one and says what PostgreSQL does not know."""
    cluster = await scene.start()
    calm, poisoned = Span(), Span()
    rounds = int(scene.scale.pick(gate=40, whole=200))
    forged = dropped = 0

    async def publish(run: Run, payloads: Callable[[int, Device, Device], list[bytes]]) -> int:
        """Give every round's payloads to a user's channel; tells how many processes got one, added up."""
        got = 0
        async with Redis(port=cluster.valkey.port, socket_timeout=5) as redis:
            for number in range(rounds):
                device, other = scene.rng.sample(run.devices, 2)
                while device.user == other.user:
                    other = scene.rng.choice(run.devices)
                for payload in payloads(number, device, other):
                    got += await redis.publish(b"user:" + device.user.encode(), payload)
                await asyncio.sleep(0.04)
        return got

    async def faults(run: Run) -> None:
        nonlocal forged, dropped
        with calm:
            await asyncio.sleep(2)
        before = await count(cluster, "frames_dropped")
        async with untouched(cluster):
            with scene.fault("poison"), poisoned:
                got = await publish(run, lambda number, *_: [NOT_FRAMES[number % len(NOT_FRAMES)]])
                async with asyncio.timeout(SETTLED_SECONDS):
                    while (dropped := await count(cluster, "frames_dropped") - before) < got:
                        await asyncio.sleep(0.1)
                assert 0 < got == dropped
                forged = await publish(run, lambda _, device, other: forgeries(device, other))
            await is_back(scene, cluster)

    played = await scene.play(faults)
    assert forged > 0
    scene.notes["poisonous_payloads"] = dropped + forged
    assert len(played.history.streams) == len(played.history.devices), "a stream has ended"
    assert b"new_message" in shown[0], "what devices were sent was not looked at"
    assert not [seen for seen in shown if CANARY in seen]
    for server in cluster.servers:
        assert CANARY not in server.log.read_bytes()
    no_send_failed(played)
    nothing_came_late(scene, played, calm, poisoned)


def forgeries(device: Device, other: Device) -> list[bytes]:
    """Frames that no Gapless server would have sent to this device's user."""
    epoch, _, seq = (device.cursor or "").partition(".")
    others_epoch = (other.cursor or "").partition(".")[0]
    return [
        b"id: %b.%d\n" % (others_epoch.encode(), int(seq) + 1) + MESSAGE,
        b"id: %b.%d\n" % (epoch.encode(), int(seq) + 1_000_000) + MESSAGE,
        b'id: %b.%d\nevent: new_message\ndata: {"content":"%b"}\n\n' % (epoch.encode(), int(seq), CANARY),
        b':999999999\nevent: message_deleted\ndata: {"id":"%b"}\n\n' % CANARY,
        b"!close 0",
        b"!unknown " + CANARY,
        b"!read",
    ]


@pytest.mark.scenario(
    "F17",
    "One user's streams come and go 100 times a second on all processes",
    "no message missed or late; a channel is subscribed to exactly where somebody listens",
    seconds=36,
)
async def test_one_users_streams_come_and_go(scene):
    """Protocol 5.1, 5.4."""
    cluster = await scene.start()
    calm, churn = Span(), Span()
    rounds = int(scene.scale.pick(gate=300, whole=2000))

    async def faults(run: Run) -> None:
        with calm:
            await asyncio.sleep(2)
        busiest = max(run.plan.users, key=lambda user: sum(user in talk.members for talk in run.plan.talks))
        devices = [device for device in run.devices if device.user == busiest][1:]  # one of them stays
        async with untouched(cluster):
            with scene.fault("streams come and go"), churn:
                for number in range(rounds):
                    devices[number % len(devices)].reconnect()
                    await asyncio.sleep(0.01)
            await listens_where_somebody_does(cluster.valkey.port, run)
            await is_back(scene, cluster)

    opened = await count(cluster, "streams_opened")
    played = await scene.play(faults, devices_per_user=4, users=50, largest_group=20, direct_pairs=30)
    reconnects = await count(cluster, "streams_opened") - opened - len(played.history.devices)
    scene.notes["reconnects"] = reconnects
    scene.notes["reconnects_a_second"] = round(reconnects / (churn.until - churn.since))
    assert reconnects > rounds / 2
    no_send_failed(played)
    nothing_came_late(scene, played, calm, churn)


async def listens_where_somebody_does(port: int, run: Run) -> None:
    """Wait until the last ones are back and the last channel is given up; asks Redis and all devices."""
    deadline = time.monotonic() + SETTLED_SECONDS
    while (held := held_by(run.devices)) is None or held != await listeners(port, run.plan.users):
        assert time.monotonic() < deadline, f"held: {held}"
        await asyncio.sleep(0.1)


def held_by(devices: list[Device]) -> dict[str, int] | None:
    """How many processes hold a stream of each user; None while one is without."""
    ports: dict[str, set[int]] = defaultdict(set)
    for device in devices:
        connection = device._connection
        if not device.is_open.is_set() or connection is None or connection.has_ended.done():
            return None
        assert connection._transport is not None
        ports[device.user].add(connection._transport.get_extra_info("peername")[1])
    return {user: len(of_user) for user, of_user in ports.items()}


async def listeners(port: int, users: tuple[str, ...]) -> dict[str, int]:
    """How many connections are subscribed to each user's channel."""
    async with Redis(port=port, socket_timeout=5, decode_responses=True) as redis:
        found = await redis.pubsub_numsub(*(f"user:{user}" for user in users))
    return {str(channel).removeprefix("user:"): number for channel, number in found}
