"""Transactions that hold on to what others need, and that PostgreSQL asks to run again."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.faults.kit.postgres import defects, failed_when_well, kept_streams, wrong_rows
from tests.history.records import Attempt, Outcome
from tests.history.run import Run

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]


@pytest.mark.scenario(
    "F26",
    "a foreign transaction with an id of its own stays open",
    "no effect: a seq does not wait for older transactions",
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
                    await asyncio.sleep(scene.scale.pick(gate=3, whole=20))
        finally:
            await foreign.close()

    played = await scene.play(faults)
    assert played.summary.unknown == 0
    slowest = played.slowest_delivery()
    assert slowest < scene.scale.heartbeat_seconds, "deliveries waited for a head check"
    assert await wrong_rows(cluster) == []
    assert defects(cluster) == []


@pytest.mark.scenario(
    "F27",
    "a foreign transaction holds the row of one user's inbox, until PostgreSQL ends it",
    "sends to that user: 503 within 5 s, then as before; sends to others: none fails",
)
async def test_a_foreign_transaction_holds_an_inbox(scene):
    """Protocol 2.5."""
    cluster = await scene.start()
    held = ""

    async def faults(run) -> None:
        nonlocal held
        held = _least_connected(run)
        await asyncio.sleep(1)
        foreign = await cluster.postgres.connect()
        try:
            await foreign.execute("SET idle_in_transaction_session_timeout = '8s'")
            await foreign.execute("BEGIN")
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
    # Who waits when the row becomes free is served: that is noticed a moment after it has happened.
    until = end - 0.5
    during = [each for each in played.history.attempts if begin <= each.invoked_at and each.ended_at <= until]
    waited = [each for each in during if each.conversation_id in of_held]
    others = [each for each in during if each.conversation_id not in of_held]
    assert {each.status for each in waited} == {503}, "somebody wrote past the lock, or nobody tried"
    failed = [each for each in others if each.outcome is not Outcome.ACKNOWLEDGED]
    assert len(failed) == 0, f"{len(failed)} of {len(others)} sends to others failed"
    assert len(others) > 0
    scene.notes["slowest send to others, s"] = round(max(map(_seconds, others)), 2)
    scene.notes["p99 of sends to others, s"] = round(sorted(map(_seconds, others))[len(others) * 99 // 100], 2)
    failed_late = failed_when_well(played.history)
    assert failed_late == 0, f"{failed_late} sends failed after the row was free"
    assert kept_streams(played.history), "a stream has ended"
    assert await wrong_rows(cluster) == []
    assert defects(cluster) == []


def _least_connected(run: Run) -> str:
    """Who is in one group at least, and in as few conversations as possible."""
    talks = {user: [talk for talk in run.plan.talks if user in talk.members] for user in run.plan.users}
    in_groups = [user for user in talks if any(not talk.is_direct for talk in talks[user])]
    return min(in_groups, key=lambda user: (len(talks[user]), user))


def _seconds(attempt: Attempt) -> float:
    return attempt.ended_at - attempt.invoked_at


@pytest.mark.scenario(
    "F28",
    "everybody writes to everybody: crossing sends, edits, reactions, removals and returns in few groups",
    "no deadlock, seqs without a hole",
)
async def test_crossing_writers_never_deadlock(scene):
    """Protocol 2.1: one lock order everywhere, over two processes."""
    cluster = await scene.start()

    async def faults(run) -> None:
        ends_at = time.monotonic() + scene.scale.pick(gate=4, whole=20)
        while time.monotonic() < ends_at:  # the direct ones are opened and found at the same time, too
            await asyncio.gather(*(_open_everything(run) for _ in range(4)))
            await asyncio.sleep(0.2)

    await scene.play(
        faults,
        users=8,
        devices_per_user=1,
        groups=8,
        smallest_group=5,
        largest_group=8,
        direct_pairs=20,
        sends_per_second=scene.scale.pick(gate=100, whole=300),
        changes_share=0.3,
        removals_per_second=2,
    )
    assert await wrong_rows(cluster) == []  # deadlocks are among it
    assert defects(cluster) == []


async def _open_everything(run: Run) -> None:
    """Create again, as somebody who does not know, what there is already."""
    for talk in run.plan.talks[::5]:
        owner, *others = talk.members
        body = {"kind": "direct" if talk.is_direct else "group", "member_ids": others}
        if not talk.is_direct:
            body |= {"title": f"group {talk.number}", "client_conversation_id": talk.key}
        status, answer = await run.rest.call("POST", "/conversations", owner, body)
        assert status in {200, 503}, answer  # 503 where the machine is behind


@pytest.mark.scenario(
    "F29",
    "PostgreSQL asks for every fifth batch, then for every fifth message, to be run again",
    "batches are run again, and at last message by message: stored once, seqs without a hole",
)
async def test_transactions_are_run_again(scene):
    """Protocol 2.1, 2.5: serialization failures and deadlock victims, at random."""
    cluster = await scene.start()
    connection = await cluster.postgres.connect()

    async def faults(_run) -> None:
        for each in ("STATEMENT", "ROW"):
            await asyncio.sleep(0.5)
            await connection.execute(UNLUCKY.format(each=each))
            with scene.fault(f"one in five fails, per {each.lower()}"):
                await asyncio.sleep(scene.scale.pick(gate=2, whole=10))
            await connection.execute("DROP TRIGGER unlucky ON inbox_heads; DROP FUNCTION unlucky")
        await asyncio.sleep(1)

    try:
        played = await scene.play(faults)
    finally:
        await connection.close()
    scene.notes["sends to be repeated by clients"] = played.summary.unknown
    begin, end, _ = played.history.faults[0]
    batches = [each for each in played.history.attempts if begin <= each.invoked_at and each.ended_at <= end]
    failed = sum(each.message_id is None for each in batches)
    # Three runs of a batch, then three of each target alone: nobody is unlucky so often.
    assert failed <= len(batches) / 100, f"{failed} of {len(batches)} sends failed"
    assert await wrong_rows(cluster) == []
    assert defects(cluster) == []


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
