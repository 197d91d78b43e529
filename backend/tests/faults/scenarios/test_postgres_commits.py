"""What becomes of a send at the moment of its commit: cut off, hung up on, overtaken, asked for fifty times."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections import Counter

import pytest

from tests.faults.kit.postgres import bound_by, sender
from tests.history.plan import Send, Talk, new_key
from tests.history.records import Attempt, Outcome
from tests.history.run import Run

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

PATIENCE_SECONDS = 20.0  # until chance has done what it is there for
CONTENT = b"xxxx"  # what stands in every message of the load, and in nothing else that PostgreSQL is sent


@pytest.mark.scenario(
    "F23",
    "the connection to PostgreSQL is lost during COMMIT, again and again",
    "the same keys tell the server, or the client that repeats, what became of it: stored once, delivered once",
    gate=True,
    seconds=24.0,
)
async def test_the_connection_is_lost_during_commit(scene):
    """Protocol 2.2, 2.4, 2.5, 5.4: the request is forwarded, its reply is not."""
    cluster = await scene.start(link_postgres=True)

    links = cluster.postgres_links
    enough = scene.scale.pick(gate=12, whole=80)
    of_changes = scene.scale.pick(gate=0, whole=0.2)

    def lost() -> list[bytes]:
        return [request for link in links for request in link.swallowed]

    async def faults(_run) -> None:
        with scene.fault("replies to commits are lost"):
            async with asyncio.timeout(60):
                while len(lost()) < enough:
                    for link in links:
                        if link.awaited is None:
                            # Of a send the one statement is the transaction; an edit has a COMMIT of its own.
                            link.cut_before_reply_to(b"COMMIT" if scene.rng.random() < of_changes else CONTENT)
                    await asyncio.sleep(scene.rng.uniform(0.05, 0.4))
        for link in links:
            link.heal()
        await asyncio.sleep(1)

    # Changes are few: each that is missed makes devices ask for them, and it is not the reading that is tried here.
    played = await scene.play(
        faults,
        sends_per_second=scene.scale.pick(gate=80, whole=250),
        changes_share=scene.scale.pick(gate=0, whole=0.01),
    )
    scene.notes["replies lost"], scene.notes["of these to changes"] = len(lost()), lost().count(b"COMMIT")
    assert lost().count(CONTENT) > 0
    assert lost().count(b"COMMIT") > 0 or of_changes == 0, "of no change was the reply lost"
    scene.notes["sends to be repeated by clients"] = played.summary.unknown
    slowest = played.slowest_delivery()
    assert slowest < scene.scale.heartbeat_seconds + 2, "later than the next head check"


@pytest.mark.scenario(
    "F24",
    "1,000 clients hang up while their message is being committed",
    "either no message, or one that everybody gets as soon as others; no request that is cut short is stored",
    seconds=14.0,
)
async def test_clients_hang_up_while_their_send_commits(scene):
    """Protocol 2.2."""
    cluster = await scene.start()
    connection = await cluster.postgres.connect()
    hung_up_at: dict[str, float] = {}  # by content, on PostgreSQL's clock

    async def faults(run) -> None:
        await connection.execute(SLOW_COMMITS)
        await asyncio.sleep(1)
        with scene.fault("clients hang up"):
            for _ in range(int(scene.scale.pick(gate=4, whole=40))):
                await asyncio.gather(*(_send_and_hang_up(scene, run, hung_up_at) for _ in range(25)))
                await asyncio.sleep(0.1)

    try:
        played = await scene.play(faults)
        met = await connection.fetchval(MET, list(hung_up_at), list(hung_up_at.values()))
    finally:
        await connection.close()
    attempts = played.history.attempts
    hung_up = {each.content: each.ended_at for each in attempts if each.content.startswith("hung up")}
    cut_short = {each.content for each in attempts if each.content.startswith("cut short")}
    stored = {message.content for message in played.history.store}
    scene.notes["hung up"], scene.notes["of these stored"] = len(hung_up), len(hung_up.keys() & stored)
    scene.notes["for certain during the transaction"], scene.notes["cut short"] = met, len(cut_short)
    assert met > len(hung_up) / 20, f"the moment was met {met} times"
    assert cut_short
    assert not cut_short & stored, "half a request was stored"
    slowest = max(
        event.at - hung_up[event.message.content]
        for event in played.history.events
        if event.name == "new_message" and event.message is not None and event.message.content in hung_up
    )
    scene.notes["longest delivery of these, s"] = round(slowest, 2)
    # Nobody knows when it was acknowledged: of the others it is counted from when they were sent.
    usual = played.summary.slowest_answer_seconds + played.slowest_delivery()
    limit_seconds = bound_by(usual, played.meter.longest())
    assert slowest <= limit_seconds, f"one was delivered after {slowest:.1f} s"


# At the end of the transaction, for each of these messages.
SLOW_COMMITS = """
CREATE FUNCTION commit_slowly() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(0.004);
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER commit_slowly AFTER INSERT ON messages DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.content LIKE 'hung up%') EXECUTE FUNCTION commit_slowly();
"""
# What was begun before its client hung up, and cannot have been committed by then: a batch has one `created_at`.
MET = """
SELECT count(*) FROM (
    SELECT content, extract(epoch FROM created_at) AS began_at,
           0.004 * count(*) OVER (PARTITION BY created_at) AS seconds
    FROM messages WHERE content LIKE 'hung up%') AS m
JOIN unnest($1::text[], $2::float[]) AS u (content, hung_up_at) USING (content)
WHERE u.hung_up_at BETWEEN m.began_at AND m.began_at + m.seconds
"""


async def _send_and_hang_up(scene, run: Run, hung_up_at: dict[str, float]) -> None:
    """Send, reset the connection some milliseconds later, and note that nothing is known of it."""
    talk = scene.rng.choice(run.plan.talks)
    user, key = scene.rng.choice(talk.members), new_key(run.rng)
    is_cut_short = scene.rng.random() < 0.2
    content = f"{'cut short' if is_cut_short else 'hung up'} {key}"
    body = json.dumps(_body(run, talk, user, key, content)).encode()
    head = (
        "POST /api/v1/messages/send HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {run.rest.token(user)}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    invoked_at = time.monotonic()
    _, writer = await asyncio.open_connection("127.0.0.1", scene.rng.choice(run.rest.ports))
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.write(head + (body[:-1] if is_cut_short else body))
    await writer.drain()
    await asyncio.sleep(scene.rng.uniform(0, 0.02))
    writer.transport.abort()
    if not is_cut_short:
        hung_up_at[content] = time.time()
    run.history.attempts.append(
        Attempt(
            sender=user,
            key=key,
            conversation_id=run.conversations[talk.number],
            content=content,
            invoked_at=invoked_at,
            ended_at=time.monotonic(),
            outcome=Outcome.UNKNOWN,
        )
    )


@pytest.mark.scenario(
    "F25",
    "transactions commit in another order than they began, while clients reconnect in between",
    "who reconnects between two overlapping sends gets both, ascending; ids would have lost some",
    gate=True,
    seconds=32.0,
)
async def test_sends_commit_out_of_order(scene):
    """Protocol 2.1, 5.1."""
    cluster = await scene.start()
    connection = await cluster.postgres.connect()
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    sleep_seconds, reconnected = scene.scale.pick(gate=0.5, whole=1), 0

    async def nothing_met() -> bool:
        return reconnected == 0 or await connection.fetchval(OVERTAKEN) == 0

    async def faults(run) -> None:
        nonlocal reconnected
        await asyncio.sleep(0.5)
        await connection.execute(SLOW_MESSAGES.format(share=0.015 / sleep_seconds, seconds=sleep_seconds))
        with scene.fault(f"some transactions take {sleep_seconds:g} s longer"):
            ends_at = time.monotonic() + scene.scale.pick(gate=2.5, whole=20)
            gives_up_at = ends_at + PATIENCE_SECONDS
            while time.monotonic() < ends_at or (time.monotonic() < gives_up_at and await nothing_met()):
                if await connection.fetchval(sleeping):
                    for device in scene.rng.sample(run.devices, 8):
                        device.reconnect()
                        reconnected += 1
                await asyncio.sleep(0.05)
        await connection.execute("DROP TRIGGER sleep_at_times ON messages")

    try:
        await scene.play(faults)
        overtaken = await connection.fetchval(OVERTAKEN)
    finally:
        await connection.close()
    scene.notes["places in inboxes where an older id came later"] = overtaken
    scene.notes["reconnects meanwhile"] = reconnected
    assert overtaken > 0, "nothing was overtaken"
    assert reconnected > 0, "nobody reconnected while one was being committed"


# After a message has its id and before its receivers' seqs are taken.
SLOW_MESSAGES = """
CREATE FUNCTION sleep_at_times() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF random() < {share} THEN PERFORM pg_sleep({seconds}); END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER sleep_at_times AFTER INSERT ON messages FOR EACH STATEMENT EXECUTE FUNCTION sleep_at_times();
"""
# By id a reader would have passed these: ids are taken before the commit and grow with time.
OVERTAKEN = """
SELECT count(*) FROM (
    SELECT message_id, max(message_id::text) OVER (PARTITION BY user_id ORDER BY seq
                                                   ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
    FROM inbox) AS log
WHERE message_id::text < before
"""


@pytest.mark.scenario(
    "F66",
    "one `client_message_id` is sent 50 times at once, to both processes",
    "one 201, 49 times 200 in the end, one message, one delivery; another text under the same key is refused",
    gate=True,
    seconds=20.0,
)
async def test_one_key_is_sent_fifty_times_at_once(scene):
    """Protocol 2.4."""
    await scene.start()
    answers: list[Counter[int]] = []
    unavailable: list[int] = []

    async def faults(run) -> None:
        await asyncio.sleep(1)
        with scene.fault("fifty at once"):
            for _ in range(int(scene.scale.pick(gate=6, whole=40))):
                statuses = await _send_fifty(scene, run)
                unavailable.append(statuses.pop(503, 0))
                answers.append(statuses)
                await asyncio.sleep(0.2)
        await asyncio.sleep(1)

    await scene.play(faults)
    scene.notes["times that one had to be repeated"] = sum(unavailable)
    for statuses, repeated in zip(answers, unavailable, strict=True):
        # The one that made it may have been told 503, and 200 when it asked again.
        expected = [{200: 49, 201: 1, 409: 5}, {200: 50, 409: 5}]
        assert statuses in expected[: 2 if repeated else 1], statuses


async def _send_fifty(scene, run: Run) -> Counter[int]:
    """Send one message fifty times and five others under its key; give the statuses."""
    talk = scene.rng.choice(run.plan.talks)
    user, key = scene.rng.choice(talk.members), new_key(run.rng)
    same = Send(0, talk.number, user, key, f"one of fifty {key}")
    load, before = sender(run), len(run.history.attempts)
    await asyncio.gather(*(load.send(same) for _ in range(50)))
    others = await asyncio.gather(
        *(
            run.rest.insist("POST", "/messages/send", user, _body(run, talk, user, key, f"another {number}"))
            for number in range(5)
        )
    )
    mine = [each for each in run.history.attempts[before:] if each.key == key]
    assert len({each.message_id for each in mine if each.message_id is not None}) == 1
    return Counter([*(each.status for each in mine), *(status for status, _ in others)])


def _body(run: Run, talk: Talk, user: str, key: str, content: str) -> dict[str, str]:
    body = {"content": content, "client_message_id": key}
    if talk.is_direct:
        return body | {"recipient_id": next(member for member in talk.members if member != user)}
    return body | {"conversation_id": run.conversations[talk.number]}
