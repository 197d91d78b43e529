"""Transactions that hold on to what others need, and that PostgreSQL asks to run again."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.faults.kit.postgres import (
    bound_by,
    counted_by_all,
    failed_when_well,
    kept_streams,
    sender,
    slowest,
)
from tests.history.plan import Send, new_key
from tests.history.records import Attempt, History, Outcome
from tests.history.run import Run

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

HELD_SECONDS = 8  # more than any request waits
WRITERS = 50


@pytest.mark.scenario(
    "F26",
    "a foreign transaction with an id of its own stays open",
    "no effect: a seq does not wait for older transactions",
    seconds=75.0,
)
async def test_a_foreign_transaction_stays_open(scene):
    """Protocol 2.1: with ids from a sequence, readers would have to wait for it or would skip."""
    cluster = await scene.start()

    async def faults(_run) -> None:
        await asyncio.sleep(1)
        foreign = await cluster.postgres.connect()
        try:
            with scene.fault("a transaction is open"):
                async with foreign.transaction():
                    await foreign.fetchval("SELECT pg_current_xact_id()")
                    await foreign.execute("CREATE TABLE of_somebody_else ()")
                    await asyncio.sleep(scene.scale.pick(gate=3, whole=60))
        finally:
            await foreign.close()

    played = await scene.play(faults)
    assert played.summary.unknown == 0
    slowest = played.slowest_delivery()
    assert slowest < scene.scale.heartbeat_seconds, "deliveries waited for a head check"


@pytest.mark.scenario(
    "F27",
    "a foreign transaction holds the row of one user's inbox, until PostgreSQL ends it",
    "sends to that user: 503 within 5 s, then as before; sends to others: none fails, none waits for it",
    seconds=25.0,
)
async def test_a_foreign_transaction_holds_an_inbox(scene):
    """Protocol 2.5."""
    cluster = await scene.start()
    held, free_at = "", 0.0

    async def faults(run) -> None:
        nonlocal held, free_at
        held = _least_connected(run)
        await asyncio.sleep(scene.scale.pick(gate=1, whole=3))
        foreign = await cluster.postgres.connect()
        try:
            await foreign.execute(f"SET idle_in_transaction_session_timeout = '{HELD_SECONDS}s'")
            await foreign.execute("BEGIN")
            free_at = time.monotonic() + HELD_SECONDS  # at the earliest
            await foreign.fetch("UPDATE inbox_heads SET head = head WHERE user_id = $1", held)
            with scene.fault("an inbox is held"):
                async with asyncio.timeout(20):
                    while not foreign.is_closed():
                        await asyncio.sleep(0.1)
            await asyncio.sleep(5)
        finally:
            foreign.terminate()

    played = await scene.play(faults)
    ((begin, end, _),) = played.history.faults
    of_held = {each.conversation_id for each in played.history.memberships if each.user == held}
    attempts = played.history.attempts
    # Who waits when the row becomes free is served.
    during = [each for each in attempts if begin <= each.invoked_at and each.ended_at <= free_at]
    waited = [each for each in during if each.conversation_id in of_held]
    others = [each for each in during if each.conversation_id not in of_held]
    assert {each.status for each in waited} == {503}, "somebody wrote past the lock, or nobody tried"
    failed = [each for each in others if each.outcome is not Outcome.ACKNOWLEDGED]
    assert len(failed) == 0, f"{len(failed)} of {len(others)} sends to others failed"
    assert len(others) > 0
    calm_seconds = slowest(each for each in attempts if each.ended_at < begin or each.invoked_at > end + 1)
    scene.notes["slowest send to others, s"] = round(slowest(others), 2)
    scene.notes["slowest in the calm, s"] = round(calm_seconds, 2)
    limit_seconds = bound_by(calm_seconds, played.meter.longest(begin, end))
    assert slowest(others) <= limit_seconds, f"a send to others took {slowest(others):.1f} s"
    assert any(each.conversation_id in of_held and each.message_id for each in attempts if each.invoked_at > end)
    failed_late = failed_when_well(played.history)
    assert failed_late == 0, f"{failed_late} sends failed after the row was free"
    assert kept_streams(played.history), "a stream has ended"


def _least_connected(run: Run) -> str:
    """Who is in one group at least, and in as few conversations as possible."""
    talks = {user: [talk for talk in run.plan.talks if user in talk.members] for user in run.plan.users}
    in_groups = [user for user in talks if any(not talk.is_direct for talk in talks[user])]
    return min(in_groups, key=lambda user: (len(talks[user]), user))


@pytest.mark.scenario(
    "F28",
    "50 writers, five users: crossing sends, edits, reactions, removals and returns in few groups",
    "they wait for each other's rows, and there is no deadlock; seqs without a hole",
    seconds=32.0,
)
async def test_crossing_writers_never_deadlock(scene):
    """Protocol 2.1: one lock order everywhere, over two processes."""
    cluster = await scene.start()
    waits: list[int] = []

    async def faults(run) -> None:
        ends_at = time.monotonic() + scene.scale.pick(gate=4, whole=20)
        watching = asyncio.create_task(_watch_waits(cluster, waits))
        writing = [asyncio.create_task(_keep_writing(scene, run, until=ends_at)) for _ in range(WRITERS)]
        try:
            while time.monotonic() < ends_at:  # the direct ones are opened and found at the same time, too
                await asyncio.gather(*(_open_everything(run) for _ in range(4)))
                await asyncio.sleep(0.2)
            await asyncio.gather(*writing)
        finally:
            for task in (watching, *writing):
                task.cancel()
            await asyncio.gather(watching, *writing, return_exceptions=True)

    await scene.play(
        faults,
        users=5,
        devices_per_user=1,
        groups=8,
        smallest_group=3,
        largest_group=5,
        direct_pairs=10,
        sends_per_second=scene.scale.pick(gate=50, whole=100),  # the writers' come in addition
        changes_share=0.6,
        removals_per_second=2,
    )
    scene.notes["looks at which somebody waited for a row"] = f"{sum(map(bool, waits))} of {len(waits)}"
    assert sum(map(bool, waits)) > len(waits) / 20, "nobody was in anybody's way"
    assert await counted_by_all(cluster.servers, "send_retries") == 0, "deadlocks, and sends were run again"


async def _keep_writing(scene, run: Run, *, until: float) -> None:
    """Send to any of the conversations, one message after the other."""
    load = sender(run)
    while time.monotonic() < until:
        talk = scene.rng.choice(run.plan.talks)
        # Of a group the owner, who is never removed.
        writer = scene.rng.choice(talk.members) if talk.is_direct else talk.members[0]
        await load.send(Send(0, talk.number, writer, new_key(run.rng), "crossing"))


async def _watch_waits(cluster, waits: list[int]) -> None:
    """Count again and again how many transactions wait for another one."""
    connection = await cluster.postgres.connect()
    try:
        while True:
            waits.append(await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
            await asyncio.sleep(0.02)
    finally:
        connection.terminate()


async def _open_everything(run: Run) -> None:
    """Create again, as somebody who does not know, what there is already."""
    for talk in run.plan.talks[::5]:
        owner, *others = talk.members
        body = {"kind": "direct" if talk.is_direct else "group", "member_ids": others}
        if not talk.is_direct:
            body |= {"title": f"group {talk.number}", "client_conversation_id": talk.key}
        status, answer = await run.rest.call("POST", "/conversations", owner, body)
        assert status in {0, 200, 503}, answer  # where the machine is behind; the checker looks at silence


@pytest.mark.scenario(
    "F29",
    "PostgreSQL asks for every fifth batch, then for every fifth message, to be run again",
    "batches are run again, and at last each conversation by itself: stored once, seqs without a hole",
    seconds=32.0,
)
async def test_transactions_are_run_again(scene):
    """Protocol 2.1, 2.5: serialization failures and deadlock victims, at random."""
    cluster = await scene.start()
    connection = await cluster.postgres.connect()
    counts: list[tuple[int, ...]] = []
    pairs: set[str] = set()

    async def faults(run) -> None:
        pairs.update(run.conversations[talk.number] for talk in run.plan.talks if talk.is_direct)
        for each in ("STATEMENT", "ROW"):
            await asyncio.sleep(0.5)
            await connection.execute(UNLUCKY.format(each=each))
            with scene.fault(f"one in five fails, per {each.lower()}"):
                await asyncio.sleep(scene.scale.pick(gate=2, whole=10))
            await connection.execute("DROP TRIGGER unlucky ON inbox_heads; DROP FUNCTION unlucky")
            names = ("send_retries", "send_batches_isolated")
            counts.append(tuple([await counted_by_all(cluster.servers, name) for name in names]))
        await asyncio.sleep(1)

    try:
        played = await scene.play(faults)
    finally:
        await connection.close()
    (retries, _), (_, isolated) = counts
    scene.notes["batches run again"], scene.notes["batches taken apart"] = retries, isolated
    scene.notes["sends to be repeated by clients"] = played.summary.unknown
    assert retries > 0, "no batch was run again"
    assert isolated > 0, "no batch was taken apart"
    per_statement, per_row = (_within(played.history, fault) for fault in played.history.faults)
    failed = sum(each.message_id is None for each in per_statement)
    # Three runs of a batch, then three of each target alone: nobody is unlucky so often.
    assert failed <= len(per_statement) * 0.03, f"{failed} of {len(per_statement)} sends failed"
    # Of a batch of many rows none succeeds any more; of those to two inboxes nearly all do, by themselves.
    direct = [each for each in per_row if each.conversation_id in pairs]
    stored = sum(each.message_id is not None for each in direct)
    scene.notes["direct sends that came through in the end"] = f"{stored} of {len(direct)}"
    assert stored > len(direct) / 2, f"{stored} of {len(direct)} direct sends came through"


def _within(history: History, fault: tuple[float, float, str]) -> list[Attempt]:
    begin, end, _ = fault
    return [each for each in history.attempts if begin <= each.invoked_at and each.ended_at <= end]


# Late in the transaction, when everything is written.
UNLUCKY = """
CREATE FUNCTION unlucky() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF random() < 0.1 THEN RAISE EXCEPTION 'could not serialize' USING ERRCODE = '40001'; END IF;
    IF random() < 0.1 THEN RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01'; END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER unlucky AFTER UPDATE ON inbox_heads FOR EACH {each} EXECUTE FUNCTION unlucky();
"""
