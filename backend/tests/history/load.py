"""Does what the plan says at the pace it says, and writes every attempt down."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine, Mapping
from typing import Any, NamedTuple

from tests.history.plan import Act, Change, Plan, Read, Removal, Send, Typing
from tests.history.records import Attempt, History, Membership, Outcome, is_refusal
from tests.history.rest import Rest

# Past this many open requests the load waits: on a machine that is behind, what is measured is the server's
# answer and not a queue before it.
MAX_OPEN = 250
GIVE_UP_SECONDS = 90.0
RETRY_PAUSE_SECONDS = (0.05, 1.0)
EMOJI = "%F0%9F%91%8D"  # thumbs up


class Known(NamedTuple):
    """A message that was acknowledged."""

    sender: str
    id: str
    seq: int


class Load:
    """One run's senders. A send with an unknown outcome is repeated with its key until it is known."""

    def __init__(self, plan: Plan, rest: Rest, history: History, conversations: Mapping[int, str]) -> None:
        self.lag_seconds = 0.0  # how far behind the plan the machine fell
        self._plan, self._rest, self._history = plan, rest, history
        self._conversations = conversations
        self._rng = random.Random(plan.seed + 1)
        self._talks = {talk.number: talk for talk in plan.talks}
        self._acknowledged: dict[int, list[Known]] = {number: [] for number in self._talks}
        self._memberships = {(each.conversation_id, each.user): each for each in history.memberships}
        self._away: set[tuple[int, str]] = set()
        self._room = asyncio.Semaphore(MAX_OPEN)
        self._open: set[asyncio.Task[None]] = set()
        self._is_stopped = False

    def stop(self) -> None:
        """Begin nothing more of the plan."""
        self._is_stopped = True

    async def run(self) -> None:
        """Play the plan to its end or until stopped; what is unanswered then goes on."""
        started = time.monotonic()
        for act in self._plan.acts:
            if self._is_stopped:
                return
            late = time.monotonic() - started - act.at
            self.lag_seconds = max(self.lag_seconds, late)
            if late < 0:
                await asyncio.sleep(-late)
            await self._room.acquire()
            self._start(self._do(act))

    async def settle(self) -> None:
        """Wait until every send is acknowledged or refused, and everybody is back."""
        while self._open:
            await asyncio.gather(*self._open)

    async def send(self, send: Send) -> str | None:
        """Send until the outcome is known; gives the message's id. Raises AssertionError where it stays unknown."""
        talk = self._talks[send.talk]
        body = {"content": send.content, "client_message_id": send.key}
        if talk.is_direct:
            body["recipient_id"] = next(member for member in talk.members if member != send.sender)
        else:
            body["conversation_id"] = self._conversations[send.talk]
        deadline, pause = time.monotonic() + GIVE_UP_SECONDS, RETRY_PAUSE_SECONDS[0]
        while True:
            call, answer = await self._rest.ask("POST", "/messages/send", send.sender, body)
            outcome = outcome_of(call.status)
            message_id = answer["id"] if outcome is Outcome.ACKNOWLEDGED else None
            self._history.attempts.append(
                Attempt(
                    sender=send.sender,
                    key=send.key,
                    conversation_id=self._conversations[send.talk],
                    content=send.content,
                    invoked_at=call.invoked_at,
                    ended_at=call.ended_at,
                    outcome=outcome,
                    status=call.status,
                    message_id=message_id,
                    is_silent=call.is_silent,
                )
            )
            if message_id is not None:
                self._acknowledged[send.talk].append(Known(send.sender, answer["id"], answer["seq"]))
            if outcome is not Outcome.UNKNOWN:
                return message_id
            if time.monotonic() > deadline:
                raise AssertionError(f"send {send.key} stays unknown: {call.status} {answer}")
            await asyncio.sleep(self._rng.uniform(pause / 2, pause))
            pause = min(pause * 2, RETRY_PAUSE_SECONDS[1])

    async def react(self, message_id: str, user: str) -> None:
        """React until it is acknowledged."""
        await self._insist("PUT", f"/messages/{message_id}/reactions/{EMOJI}", user)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._open.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._room.release()
        if not task.cancelled() and task.exception() is None:  # a failed one is found by settle()
            self._open.discard(task)

    async def _do(self, act: Act) -> None:
        match act:
            case Send():
                await self.send(act)
            case Change():
                await self._change(act)
            case Removal():
                await self._remove_and_add(act)
            case Read():
                await self._mark_read(act)
            case Typing():
                path = f"/conversations/{self._conversations[act.talk]}/typing"
                await self._rest.call("POST", path, act.user, {"is_typing": True})

    async def _change(self, change: Change) -> None:
        known = self._pick(change.talk, change.place)
        if known is None:
            return
        path = f"/messages/{known.id}"
        # What may no longer be done (deleted, has left) is refused, and that is no matter here.
        if change.kind == "edit":
            await self._insist("PATCH", path, known.sender, {"content": f"edited {change.place}"})
        elif change.kind == "delete":
            await self._insist("DELETE", path, known.sender)
        else:
            await self._insist("PUT", f"{path}/reactions/{EMOJI}", change.user)

    async def _mark_read(self, read: Read) -> None:
        known = self._pick(read.talk, read.place)
        if known is not None:
            path = f"/conversations/{self._conversations[read.talk]}/read"
            await self._insist("POST", path, read.user, {"seq": known.seq})

    async def _insist(self, method: str, path: str, user: str, body: object = None) -> None:
        """Repeat until it is done or refused: what is unknown might be done after the last words."""
        await self._rest.insist(method, path, user, body, within_seconds=GIVE_UP_SECONDS)

    def _pick(self, talk: int, place: float) -> Known | None:
        known = self._acknowledged[talk]
        return known[int(place * len(known))] if known else None

    async def _remove_and_add(self, removal: Removal) -> None:
        if (removal.talk, removal.user) in self._away:
            return
        self._away.add((removal.talk, removal.user))
        conversation_id, owner = self._conversations[removal.talk], self._talks[removal.talk].members[0]
        path = f"/conversations/{conversation_id}/members/{removal.user}"
        membership = self._memberships[conversation_id, removal.user]
        membership.left_from = time.monotonic()
        status, answer = await self._rest.insist("DELETE", path, owner)
        assert status in {200, 204, 404}, answer
        membership.left_by = time.monotonic()
        await asyncio.sleep(removal.away_seconds)
        joined_from = time.monotonic()
        status, answer = await self._rest.insist("PUT", path, owner, {})
        assert status < 300, answer
        again = Membership(conversation_id, removal.user, joined_from, time.monotonic())
        self._memberships[conversation_id, removal.user] = again
        self._history.memberships.append(again)
        self._away.discard((removal.talk, removal.user))


def outcome_of(status: int) -> Outcome:
    """Only an answer that says so means that nothing was stored."""
    if status in {200, 201}:
        return Outcome.ACKNOWLEDGED
    if is_refusal(status):
        return Outcome.REFUSED
    return Outcome.UNKNOWN
