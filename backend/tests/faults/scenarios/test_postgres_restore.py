"""A backup is put back: PostgreSQL forgets what clients have seen, and gives the same numbers again."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from app.db.operations import renew_epoch
from app.db.pool import Database
from tests.faults.kit.nodes import PostgresNode
from tests.faults.kit.postgres import wrong_rows
from tests.faults.kit.vitals import leaks, vitals_of
from tests.support.servers import Server, new_user
from tests.support.streams import StreamClient

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]


@pytest.mark.scenario(
    "F33",
    "a backup is put back: once while Gapless runs, once with all of it stopped",
    "clients with cursors at, just past and far past its end, and open ones, are told to reload; then no hole",
    seconds=6.0,
)
async def test_a_backup_is_put_back(scene):
    """Protocol 2.4, 6.1, 6.2, 6.4: with `gapless restored` after it, as the operations page says."""
    cluster = await scene.start()
    before = await vitals_of(cluster)
    for is_running in (True, False):
        await _put_back(scene, is_running=is_running)
    assert await leaks(cluster, before) == []
    assert await wrong_rows(cluster) == []


async def _put_back(scene, *, is_running: bool) -> None:
    cluster = scene.cluster
    here, there = cluster.servers
    ada, bob, cleo = new_user("ada"), new_user("bob"), new_user("cleo")
    await here.know(ada, bob, cleo)
    kept = [await here.send(ada, bob, f"kept {number}") for number in range(5)]
    clients = {name: await _opened(here, bob) for name in ("at the backup", "past it")}
    clients["at the backup"].cut()  # its place is still there in the end
    await _copy(cluster.postgres, "postgres", "backup")

    # Goes on beyond the backup, with numbers that the restored database will give again.
    conversation_id = kept[0]["conversation_id"]
    lost = [await there.send(ada, bob, f"lost {number}") for number in range(3)]
    await _heard(clients["past it"], len(lost))
    clients["past it"].cut()
    lost += [await there.send(ada, bob, f"lost {number}") for number in range(3, 7)]
    clients |= {name: await _opened(server, bob) for name, server in (("at the end", here), ("still open", there))}
    clients["at the end"].cut()
    old_cursors = {name: client.cursor for name, client in clients.items()}
    assert [str(cursor).partition(".")[2] for cursor in old_cursors.values()] == ["5", "8", "12", "12"]
    seen_before = {name: len(client.events) for name, client in clients.items()}

    if not is_running:
        clients["still open"].cut()
        await asyncio.gather(*(server.terminate() for server in cluster.servers))
    await cluster.postgres.stop_fast()
    _swap_in(cluster.postgres, "backup", "postgres")
    await cluster.postgres.start()
    database = Database(cluster.postgres.url)
    await renew_epoch(database)  # what `gapless restored` does
    await database.close()
    if not is_running:
        await asyncio.gather(*(server.start() for server in cluster.servers))

    again = await _until_sent(here, ada, bob, lost[3])
    assert again["id"] != lost[3]["id"], "a message that the database forgot came back"
    assert again["seq"] == len(kept) + 1
    new = [await there.send(cleo, bob, f"new {number}") for number in range(20)]  # past every old cursor
    for name, client in clients.items():
        if client.is_closed:
            await client.open()
        assert client.cursor == old_cursors[name] or name == "still open"
        may_be_early = is_running and name == "still open"
        await _is_told(client, 3 * scene.scale.heartbeat_seconds, may_be_early=may_be_early)
    last = await here.send(ada, bob, "the last")
    for name, client in clients.items():
        await _heard_of(client, last["id"])
        events = client.events[seen_before[name] :]
        place = next(place for place, event in enumerate(events) if event.data and event.json.get("reason") == "epoch")
        assert not [event for event in events[:place] if event.name == "new_message"], f"{name}: foreign data"
        seqs = [int(event.id.split(".")[1]) for event in events[place:] if event.id]
        assert seqs == list(range(seqs[0], len(kept) + len(new) + 3)), f"{name}: {seqs}"
        client.cut()
    status, changes = await here.call("GET", f"/conversations/{conversation_id}/changes?after_rev=1000", user=bob)
    assert (status, changes["rev"] < 1000) == (200, True), "a copy from before is not told that it is one"


async def _opened(server: Server, user: str) -> StreamClient:
    return await StreamClient(server, user).connected()


async def _is_told(client: StreamClient, patience_seconds: float, *, may_be_early: bool) -> None:
    """To reload, because of the new epoch; `may_be_early`: its head may have been looked at before there was one."""
    resync = await client.until("resync", patience_seconds)
    if may_be_early and resync.json["reason"] == "ahead":
        assert resync.json["scope"] == "all"
        resync = await client.until("resync", patience_seconds)
    assert (resync.json["scope"], resync.json["reason"]) == ("all", "epoch"), resync


async def _heard(client: StreamClient, count: int) -> None:
    while len(client.contents) < count:
        await client.until("new_message")


async def _heard_of(client: StreamClient, message_id: str) -> None:
    while (await client.until("new_message")).json["id"] != message_id:
        pass


async def _until_sent(server: Server, sender: str, recipient: str, message: dict) -> dict:
    """Repeat a send with its key, as its client does, until it is known what became of it."""
    body = {
        "recipient_id": recipient,
        "content": message["content"],
        "client_message_id": message["client_message_id"],
    }
    async with asyncio.timeout(15):
        while True:
            status, answer = await server.call("POST", "/messages/send", user=sender, json=body)
            if status in {200, 201}:
                assert status == 201
                return answer
            assert status == 503, answer
            await asyncio.sleep(0.1)


async def _copy(postgres: PostgresNode, name: str, to: str) -> None:
    """A backup of the plainest kind: stop, copy, start."""
    await postgres.stop_fast()
    shutil.rmtree(postgres.folder / to, ignore_errors=True)
    shutil.copytree(postgres.folder / name, postgres.folder / to, symlinks=True)
    await postgres.start()


def _swap_in(postgres: PostgresNode, backup: str, name: str) -> None:
    shutil.rmtree(postgres.folder / name)
    (postgres.folder / backup).rename(postgres.folder / name)
