"""The send queue as a model: whatever a commit does, every send gets an answer, and its own.

PostgreSQL is a dictionary of keys. Hypothesis decides who sends what under which key, which targets
somebody else holds, and how each commit ends: before or after the rows are there.
"""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.db.sends import HeldRow, Send, SendOutcome
from app.errors import IdempotencyConflictError, UnavailableError
from app.services import send_queue
from app.services.send_queue import SendQueue
from tests.batches import Connections, new_send

REQUEST_SECONDS = 0.6
FAILURES: dict[str, Any] = {
    "lost": asyncpg.ConnectionDoesNotExistError,
    "late": TimeoutError,
    "cancelled": asyncpg.QueryCanceledError,
    "again": asyncpg.SerializationError,
    "deadlock": asyncpg.DeadlockDetectedError,
    "wrong": asyncpg.DataError,
    "defect": RuntimeError,
}
SCRIPT = st.lists(
    st.sampled_from(["ok", "ok", *FAILURES, "lost after", "late after", "defect after"]), max_size=12
)  # fmt: skip
STEPS = st.lists(
    st.one_of(
        # recipient, key, content: few of each, so that keys meet their like and their contraries
        st.tuples(st.sampled_from(["bob", "cleo"]), st.integers(0, 4), st.sampled_from([b"a", b"a", b"a", b"b"])),
        st.sampled_from(["hold", "free", "pause", "pause", "turn"]),
    ),
    max_size=30,
)


class Keys(Connections):
    """What PostgreSQL knows, and how its next commits end."""

    def __init__(self, script: list[str]) -> None:
        self.stored: dict[tuple[str, UUID], Send] = {}
        self.held: set[tuple[str, ...]] = set()
        self.script = list(script)
        self.open = 0

    async def commit(self, connection: Any, sends: list[Send], lock_timeout_ms: int) -> list[SendOutcome]:
        del connection
        await asyncio.sleep(0.001)
        waited_ms = 0
        while any(send.target in self.held for send in sends):
            if waited_ms >= lock_timeout_ms:
                raise asyncpg.LockNotAvailableError
            await asyncio.sleep(0.001)
            waited_ms += 10  # the clock of the model runs ten times as fast
        how = self.script.pop(0) if self.script else "ok"
        if how in FAILURES:
            raise FAILURES[how]
        new = [self._key(send) for send in sends if self._key(send) not in self.stored]
        if len(set(new)) < len(new):
            raise asyncpg.SerializationError  # as send_batch does: fewer rows than numbers
        outcomes = [self._outcome(send) for send in sends]
        if how.endswith(" after"):
            raise FAILURES[how.removesuffix(" after")]
        return outcomes

    async def ask(self, connection: Any, sends: list[Send], lock_timeout_ms: int) -> list[frozenset[HeldRow]]:
        del connection, lock_timeout_ms
        await asyncio.sleep(0.001)
        how = self.script.pop(0) if self.script and self.script[0] in FAILURES else "ok"
        if how in FAILURES:
            raise FAILURES[how]
        return [frozenset({HeldRow("bob", "1")} if send.target in self.held else ()) for send in sends]

    def _outcome(self, send: Send) -> SendOutcome:
        stored = self.stored.setdefault(self._key(send), send)
        later = "repeat" if stored.request_hash == send.request_hash else "conflict"
        outcome = "created" if stored is send else later
        return SendOutcome(outcome, stored.message_id, None, (), "db")

    @staticmethod
    def _key(send: Send) -> tuple[str, UUID]:
        return (send.sender_id, send.client_message_id)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(send_queue, "REQUEST_SECONDS", REQUEST_SECONDS)
    monkeypatch.setattr(send_queue, "MAX_BATCH", 4)


TWINS_BEHIND_A_HELD_ROW = [
    *("hold", ("bob", 0, b"a"), "pause", "pause", "pause"),
    *(("bob", 1, b"a"), ("bob", 2, b"a"), "pause", ("bob", 1, b"a"), "turn", "free"),
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(steps=TWINS_BEHIND_A_HELD_ROW, script=[])
@given(steps=STEPS, script=SCRIPT)
def test_every_send_gets_its_own_answer_whatever_a_commit_does(steps, script):
    """Protocol 1.1, 2.4, 2.5: nobody is told what is not so, nobody waits for ever, nobody takes others along."""
    asyncio.run(_play(steps, script))


async def _play(steps: list[Any], script: list[str]) -> None:
    keys = Keys(script)
    queue = SendQueue(keys, commit=keys.commit, ask=keys.ask)  # type: ignore[arg-type]
    asked: list[tuple[Send, asyncio.Task[tuple[SendOutcome, bool]]]] = []
    for step in steps:
        match step:
            case "hold":
                keys.held.add(("ada", "bob"))
            case "free":
                keys.held.clear()
            case "pause":
                await asyncio.sleep(0.02)
            case "turn":
                await asyncio.sleep(0)
            case (recipient, key, content):
                request = content + recipient.encode()
                send = new_send("ada", recipient_id=recipient, client_message_id=UUID(int=key), request_hash=request)
                asked.append((send, asyncio.create_task(queue.submit(send))))
    was_held = bool(keys.held)
    if was_held and script:
        await asyncio.sleep(0.05)
    keys.held.clear()
    async with asyncio.timeout(REQUEST_SECONDS + 1):
        answers = await asyncio.gather(*(task for _, task in asked), return_exceptions=True)
        await queue.close()

    created: list[UUID] = []
    hashes: dict[UUID, set[bytes]] = {}
    for send, _ in asked:
        hashes.setdefault(send.client_message_id, set()).add(send.request_hash)
    for (send, _), answer in zip(asked, answers, strict=True):
        if isinstance(answer, BaseException):
            assert isinstance(answer, (UnavailableError, IdempotencyConflictError)), answer
            if isinstance(answer, IdempotencyConflictError):
                assert len(hashes[send.client_message_id]) > 1
            else:
                assert script, "nothing failed, and a send was refused"
            continue
        outcome, is_first = answer
        stored = keys.stored[keys._key(send)]
        assert outcome.message_id == stored.message_id  # its own, and committed
        if outcome.outcome == "conflict":
            assert stored.request_hash != send.request_hash
        else:
            assert stored.request_hash == send.request_hash
        if outcome.outcome == "created" and is_first:
            created.append(send.client_message_id)
    assert len(created) == len(set(created))
    assert (queue._by_key, queue._isolation._lanes, list(queue._waiting)) == ({}, {}, [])
    assert (queue._isolation._size, queue._isolation._held_rows) == (0, set())
    assert sorted(queue._idle_writers) == [0, 1]
