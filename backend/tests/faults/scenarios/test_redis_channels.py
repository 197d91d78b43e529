"""Channels that strangers write to, and that are subscribed to and given up without end."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest
from redis.asyncio import Redis

from tests.faults.scenarios.redis_watch import count, is_back, longest_unnoticed
from tests.history.device import Device
from tests.history.run import Run

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

CANARY = b"c4n4ry"
MESSAGE = b'event: new_message\ndata: {"content":"' + CANARY + b'"}\n\n'
# None of them is a frame; what else is none, and why, is in hardening/test_poison.py.
NOT_FRAMES = [
    CANARY,
    b'{"type":"new_message","content":"' + CANARY + b'"}',
    bytes(range(256)) * 8,
    b"event: typing_status\ndata: " + CANARY * 900_000 + b"\n\n",
    b"event: typing_status\ndata: 1\r\ndata: " + CANARY + b"\n\n",
    b"event: typing_status\ndata: 1\n\nevent: typing_status\ndata: " + CANARY + b"\n\n",
    b"event: typing_status\ndata: \0" + CANARY + b"\n\n",
    b"id: a\n" + MESSAGE,
]


@pytest.mark.scenario(
    "F15", "Strangers publish poison on users' channels", "dropped and counted; no stream ends, none shows it"
)
async def test_strangers_publish_poison(scene):
    """Protocol 3.6: neither what is no frame, nor what is one and says what PostgreSQL does not know."""
    cluster = await scene.start()
    not_frames = forged = 0

    async def faults(run: Run) -> None:
        nonlocal not_frames, forged
        await asyncio.sleep(1)
        with scene.fault("poison"):
            async with Redis(port=cluster.valkey.port, socket_timeout=5) as redis:
                for number in range(int(scene.scale.pick(gate=40, whole=300))):
                    device, other = scene.rng.sample(run.devices, 2)
                    if device.user == other.user:
                        continue
                    channel = b"user:" + device.user.encode()
                    not_frames += await redis.publish(channel, NOT_FRAMES[number % len(NOT_FRAMES)])
                    for frame in forgeries(device, other):
                        forged += await redis.publish(channel, frame)
                    await asyncio.sleep(0.05)
            await is_back(scene, cluster)

    before = await count(cluster, "frames_dropped")
    played = await scene.play(faults)
    dropped = await count(cluster, "frames_dropped") - before
    assert not_frames > 0 < forged
    assert dropped >= not_frames
    scene.notes["poisonous_payloads"] = not_frames + forged
    assert len(played.history.streams) == len(played.history.devices), "a stream has ended"
    slowest = played.slowest_delivery()
    assert slowest < longest_unnoticed(scene)
    for server in cluster.servers:
        assert CANARY not in server.log.read_bytes()


def forgeries(device: Device, other: Device) -> list[bytes]:
    """Frames that no Gapless server would have sent to this device's user."""
    epoch, _, seq = (device.cursor or "").partition(".")
    others_epoch = (other.cursor or "").partition(".")[0]
    return [
        b"id: %b.%d\n" % (others_epoch.encode(), int(seq) + 1) + MESSAGE,
        b"id: %b.%d\n" % (epoch.encode(), int(seq) + 1_000_000) + MESSAGE,
        b'id: %b.%d\nevent: new_message\ndata: {"content":"%b"}\n\n' % (epoch.encode(), int(seq), CANARY),
        b":999999999\nevent: message_deleted\ndata: {}\n\n",
        b"!close 0",
        b"!unknown " + CANARY,
        b"!read",
    ]


@pytest.mark.scenario(
    "F17",
    "One user's streams come and go 100 times a second on all processes",
    "no message missed; a channel is subscribed to exactly where somebody listens",
)
async def test_one_users_streams_come_and_go(scene):
    """Protocol 5.1, 5.4."""
    cluster = await scene.start()
    reconnects = 0

    async def faults(run: Run) -> None:
        nonlocal reconnects
        await asyncio.sleep(1)
        busiest = max(run.plan.users, key=lambda user: sum(user in talk.members for talk in run.plan.talks))
        devices = [device for device in run.devices if device.user == busiest][1:]  # one of them stays
        with scene.fault("streams come and go"):
            for number in range(int(scene.scale.pick(gate=300, whole=2000))):
                device = devices[number % len(devices)]
                reconnects += device.is_open.is_set()
                device.reconnect()
                await asyncio.sleep(0.01)
        await asyncio.wait_for(asyncio.gather(*(device.is_open.wait() for device in run.devices)), 10)
        assert await listeners(cluster.valkey.port, run.plan.users) == held(run.devices)
        await is_back(scene, cluster)

    played = await scene.play(faults, devices_per_user=4, users=50, largest_group=20, direct_pairs=30)
    assert len(played.history.streams) > len(played.history.devices) + reconnects / 2
    slowest = played.slowest_delivery()
    assert slowest < longest_unnoticed(scene)
    scene.notes["reconnects"] = reconnects


def held(devices: list[Device]) -> dict[str, int]:
    """How many processes hold a stream of each user."""
    ports: dict[str, set[int]] = defaultdict(set)
    for device in devices:
        assert device._connection is not None
        assert device._connection._transport is not None
        ports[device.user].add(device._connection._transport.get_extra_info("peername")[1])
    return {user: len(held_by) for user, held_by in ports.items()}


async def listeners(port: int, users: tuple[str, ...]) -> dict[str, int]:
    """How many connections are subscribed to each user's channel."""
    async with Redis(port=port, socket_timeout=5, decode_responses=True) as redis:
        found = await redis.pubsub_numsub(*(f"user:{user}" for user in users))
    return {str(channel).removeprefix("user:"): number for channel, number in found}
