"""Who is removed sees nothing that was sent after: on a live stream, in the middle of catching up, typing included."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.support.servers import new_user
from tests.support.streams import StreamClient

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

MISSED = 900  # below 1,000, where a replay would be a `resync`
TYPISTS, TYPING_PAUSE_SECONDS = 20, 2.0  # one of them is heard every tenth of a second
TYPING_ENDS_SECONDS = 1.0
PADDING = "m" * 3000  # so that a replay is longer than what a client is given ahead


@pytest.mark.scenario(
    "F68",
    "members are removed from groups while they receive, and while they catch up",
    "nothing that was committed after the removal reaches them; they hear typing no longer, within a second; others do",
    seconds=27.0,
)
async def test_members_are_removed_while_they_receive(scene):
    """Protocol 2.3, 3.7, 5.3."""
    await scene.start()

    async def faults(run) -> None:
        await asyncio.sleep(1)
        with scene.fault("members go and come"):
            rounds = asyncio.create_task(_remove_in_the_middle(scene))
            while not rounds.done():
                for device in scene.rng.sample(run.devices, 6):
                    device.reconnect()
                await asyncio.sleep(0.2)
            await rounds

    await scene.play(
        faults,
        removals_per_second=8,
        sends_per_second=scene.scale.pick(gate=60, whole=170),
        typing_share=0.1,
    )


async def _remove_in_the_middle(scene) -> None:
    for _ in range(int(scene.scale.pick(gate=1, whole=3))):
        await _remove_while_live(scene.cluster.servers)
        await _remove_while_catching_up(scene.cluster.servers)


async def _remove_while_live(servers) -> None:
    """Both processes announce sends and typing to the group; one of them removes a member."""
    here, there = servers
    ada, bob, cleo = new_user("ada"), new_user("bob"), new_user("cleo")
    typists = [new_user("typist") for _ in range(TYPISTS)]
    await here.know(ada, bob, cleo, *typists)
    group = await here.group(ada, bob, cleo, *typists)
    removed, witness = await StreamClient(here, bob).connected(), await StreamClient(here, cleo).connected()
    sent_after_removal: set[str] = set()
    is_removed = False

    async def send() -> None:
        while True:
            began_after = is_removed
            message = await there.post(ada, group, "x")
            if began_after:
                sent_after_removal.add(message["id"])

    async def type_on(place: int) -> None:
        await asyncio.sleep(place * TYPING_PAUSE_SECONDS / TYPISTS)
        while True:
            server = servers[place % 2]  # always the same, which hears everybody once in two seconds
            status, _ = await server.call(
                "POST", f"/conversations/{group}/typing", user=typists[place], json={"is_typing": True}
            )
            assert status < 300
            await asyncio.sleep(TYPING_PAUSE_SECONDS + 0.05)

    # Read without a pause: an event's time is when it was read.
    busy = [asyncio.create_task(work) for work in (send(), _read_on(removed), _read_on(witness))]
    busy += [asyncio.create_task(type_on(place)) for place in range(TYPISTS)]
    try:
        for name in ("new_message", "typing_status"):  # it would be seen
            await _until_heard(removed, name)
        status, _ = await here.call("DELETE", f"/conversations/{group}/members/{bob}", user=ada)
        assert status == 204
        is_removed, removed_at = True, time.monotonic()
        await asyncio.sleep(2 * TYPING_PAUSE_SECONDS)
        failed = [task for task in busy if task.done()]
        assert not failed, failed
    finally:
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
        removed.cut()
        witness.cut()
    assert len(sent_after_removal) > 3
    assert sent_after_removal & _messages(witness), "nobody heard of what was sent after the removal"
    leaked = sent_after_removal & _messages(removed)
    assert len(leaked) == 0, f"{len(leaked)} messages sent after the removal"
    heard_late = [at - removed_at for at in _typing(witness) if at > removed_at + TYPING_ENDS_SECONDS]
    assert len(heard_late) > TYPISTS / 2, f"nobody typed any more: {heard_late}"
    late = max(_typing(removed)) - removed_at
    assert late < TYPING_ENDS_SECONDS, f"somebody was seen typing {late:.1f} s after the removal"
    farewells = [
        event for event in removed.events if event.name == "conversation_updated" and event.json["role"] is None
    ]
    assert len(farewells) == 1, "the removed was not told so"


async def _read_on(client: StreamClient) -> None:
    while True:
        await client.next(30)


async def _until_heard(client: StreamClient, name: str) -> None:
    async with asyncio.timeout(10):
        while not any(event.name == name and event.data for event in client.events):
            await asyncio.sleep(0.02)


def _messages(client: StreamClient) -> set[str]:
    return {event.json["id"] for event in client.events if event.name == "new_message" and event.data}


def _typing(client: StreamClient) -> list[float]:
    """When somebody was seen typing."""
    return [event.at for event in client.events if event.name == "typing_status"]


async def _remove_while_catching_up(servers) -> None:
    """A client that reads slowly is removed in the middle of its replay; what is left of it is not shown."""
    here, there = servers
    ada, bob = new_user("ada"), new_user("bob")
    await here.know(ada, bob)
    group = await here.group(ada, bob)
    stream = await StreamClient(here, bob).connected()
    await here.post(ada, group, "first")
    await stream.until("new_message", 10)
    stream.cut()
    for start in range(0, MISSED, 50):
        await asyncio.gather(*(servers[n % 2].post(ada, group, f"{n} {PADDING}") for n in range(start, start + 50)))

    await stream.open(here, receive_buffer=16 * 1024)
    await stream.messages(30, 20)
    stream.stop_reading()
    status, _ = await there.call("DELETE", f"/conversations/{group}/members/{bob}", user=ada)
    assert status == 204
    after = {(await there.post(ada, group, f"after {number}"))["id"] for number in range(5)}
    direct = await here.send(ada, bob, "this is for bob")
    stream.go_on_reading()
    while (await stream.until("new_message", 20)).json["id"] != direct["id"]:
        pass
    stream.cut()
    shown = [event for event in stream.events if event.name == "new_message" and event.data]
    assert not after & {event.json["id"] for event in shown}, "a message sent after the removal was replayed"
    assert len(shown) < MISSED, "everything was replayed: the removal came too late to show anything"
    # The places are there all the same: the cursor has moved over every one of them.
    seqs = [int(event.id.split(".")[1]) for event in stream.events if event.id]
    assert seqs[-1] == 1 + MISSED + 1
    assert set(range(seqs[-1] + 1)) == set(seqs)  # the first of all is 0, of an empty inbox
