"""What clients show after they were away, and who is let in again."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import pytest

from tests.support.servers import API_KEY, new_user, token_for
from tests.support.streams import StreamClient

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

TOKEN_SECONDS = 6.0
PAUSE_SECONDS = 0.2
SETTLED_SECONDS = 10.0  # 4 until the last are back, and what a slow machine takes to ask for what they missed


@pytest.mark.scenario(
    "F67",
    "Messages are edited, deleted and reacted to while clients are away",
    "back again, every client (that of the tests) soon shows what REST says",
    seconds=40,
)
async def test_changes_while_away(scene):
    """Protocol 3.3, 3.5, 6.3 to 6.6: the state of every device equals the store; late, older edits are ignored."""
    await scene.start()

    async def faults(run) -> None:
        ends_at = time.monotonic() + scene.scale.pick(gate=5, whole=20)
        with scene.fault("a third of the clients at a time is away for 1 to 4 s"):
            while time.monotonic() < ends_at:
                away = scene.rng.sample(run.devices, len(run.devices) // 3)
                for device in away:
                    device.lose_connection()
                await asyncio.sleep(2)

    shares = {"changes_share": 0.5, "removals_per_second": 0.5, "late_share": 0.1}
    shape = {"users": 60, "groups": 15, "largest_group": 20, "direct_pairs": 30} | shares
    await scene.play(
        faults,
        settle_seconds=SETTLED_SECONDS,
        sends_per_second=scene.scale.pick(gate=40, whole=150),
        **shape,
    )


@dataclass(slots=True)
class _Guest:
    """A client with a token of its own."""

    user: str
    stream: StreamClient
    sent: int = 0


@pytest.mark.scenario(
    "F69",
    "Tokens expire, and others are revoked, in mid-stream",
    "the stream ends within a heartbeat, the old token is refused, with a fresh one nothing is missing",
    seconds=40,
)
async def test_tokens_end(scene):
    """Protocol 9.2, 9.3, 7.2, 5.1."""
    cluster = await scene.start()
    each = int(scene.scale.pick(gate=3, whole=12))
    guests = [_Guest(user := new_user("guest"), StreamClient(cluster.servers[n % 2], user)) for n in range(2 * each)]
    expiring, revoked = guests[:each], guests[each:]
    stopped = asyncio.Event()

    async def keep_sending(run, writer: str) -> None:
        while not stopped.is_set():
            for guest in guests:
                body = {"recipient_id": guest.user, "content": f"{guest.sent}"}
                status, answer = await run.rest.insist("POST", "/messages/send", writer, body)
                assert status in {200, 201}, answer
                guest.sent += 1
            await asyncio.sleep(PAUSE_SECONDS)

    async def faults(run) -> None:
        writer = new_user("writer")
        for user in (writer, *(guest.user for guest in guests)):
            await run.rest.insist("GET", "/users/me", user)
        await _let_in(revoked, minutes=60)
        await _let_in(expiring, minutes=TOKEN_SECONDS / 60)
        sending = asyncio.ensure_future(keep_sending(run, writer))
        try:
            with scene.fault("tokens end"):
                await asyncio.gather(
                    *(_ends(guest, TOKEN_SECONDS + scene.scale.heartbeat_seconds) for guest in expiring)
                )
                for guest in revoked:
                    server = scene.rng.choice(cluster.servers)
                    headers = {"X-API-Key": API_KEY}
                    status, _ = await server.call("POST", f"/users/{guest.user}/revoke", headers=headers)
                    assert status == 204
                await asyncio.gather(*(_ends(guest, scene.scale.heartbeat_seconds) for guest in revoked))
            for guest in guests:
                await guest.stream.open()
                assert guest.stream.status == 401
            await asyncio.sleep(1.1)  # the second of the revocation itself is refused
            stopped.set()
            await sending
            await _let_in(guests, minutes=60)
            for guest in guests:
                async with asyncio.timeout(20):
                    while len(guest.stream.contents) < guest.sent:
                        await guest.stream.next(10)
        finally:
            stopped.set()
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            for guest in guests:
                guest.stream.cut()

    await scene.play(faults)
    for guest in guests:
        contents, seqs = guest.stream.contents, guest.stream.seqs
        assert contents == [str(number) for number in range(guest.sent)]
        assert seqs == list(range(1, guest.sent + 1))


async def _let_in(guests: list[_Guest], *, minutes: float) -> None:
    for guest in guests:
        guest.stream.token = token_for(guest.user, minutes=minutes, issued_ago_seconds=0)
        await guest.stream.connected()
        assert guest.stream.status == 200


async def _ends(guest: _Guest, within_seconds: float) -> None:
    """Read to the end of the response; whether it comes as an end or as a reset does not matter."""
    await guest.stream.until_end(within_seconds + 2)
