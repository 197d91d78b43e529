"""10,000 streams are cut at once, miss 10 messages each, and all come back at once."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from app.bench.messages import Sender
from app.bench.plan import Profile
from app.bench.results import Chart, Line
from app.bench.streams import Streams
from app.bench.tables import leave_missed, make_direct
from app.services.messaging.turnstile import Turnstile

if TYPE_CHECKING:
    from app.bench.plan import Run
    from app.bench.posts import PostResult
    from app.bench.results import ProfileResult
    from app.bench.streams import Subscriber
    from app.bench.target import Target

MISSED: Final = 10
BACK_SECONDS: Final = 5.0
SEND_P99_MS: Final = 500.0
SENDS_PER_SECOND: Final = 100
SENDERS: Final = 16
SENT_TO: Final = 6  # of those who come back, by each sender
CONNECTS_PER_TURN: Final = 50  # about 5 ms
GIVE_UP_SECONDS: Final = 60.0
SETTLE_SECONDS: Final = 1.0  # after the cut: the server closes 10,000 connections


class _ReturningStreams(Streams):
    """Streams that come back a few per turn of our loop: 10,000 in one would keep those who send from looking."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self._turnstile = Turnstile(CONNECTS_PER_TURN)

    async def _try_to_open(self, subscriber: Subscriber) -> bool:
        await self._turnstile.passed()
        return await super()._try_to_open(subscriber)


class _Return:
    """Knows when every stream has what it missed."""

    def __init__(self, streams: Streams) -> None:
        self.goals = [(subscriber.counter.last or 0) + MISSED for subscriber in streams.subscribers]
        self.everyone = asyncio.Event()
        self.moments: list[float] = []

    def on_piece(self, subscriber: Subscriber, piece: bytes) -> None:
        del piece
        goal = self.goals[subscriber.number]
        if goal and subscriber.counter.last is not None and subscriber.counter.last >= goal:
            self.goals[subscriber.number] = 0
            self.moments.append(time.perf_counter())
            if len(self.moments) == len(self.goals):
                self.everyone.set()


async def measure(run: Run, result: ProfileResult) -> None:
    """Other users go on sending to some of those who come back, so that replay and live meet."""
    async with run.stage.server() as target:
        users = target.user_ids(run.plan.size(10_000, 100), "storm")
        writer, *senders = target.user_ids(1 + SENDERS, "storm-sender")
        await target.make_users([*users, writer, *senders])
        connection = await target.database()
        try:
            with _ReturningStreams(target.host, target.port) as streams:
                run.progress.step("making conversations")
                await make_direct(connection, writer, users)
                for number, sender in enumerate(senders):
                    await make_direct(connection, sender, users[number::SENDERS][:SENT_TO])
                makers = [
                    [Sender(target, sender, recipient_id=user) for user in users[number::SENDERS][:SENT_TO]]
                    for number, sender in enumerate(senders)
                ]
                run.progress.step(f"opening {len(users):,} streams")
                await streams.open(target.stream_requests(users))
                storm = _Storm(target, streams, makers)
                for repeat in range(run.plan.repeats):
                    run.progress.step(f"repeat {repeat + 1} of {run.plan.repeats}: cutting {len(users):,} streams")
                    streams.cut()
                    await leave_missed(connection, writer, messages=MISSED)
                    await asyncio.sleep(SETTLE_SECONDS if not run.plan.quick else 0.2)
                    run.progress.step(f"repeat {repeat + 1} of {run.plan.repeats}: {len(users):,} streams come back")
                    if not await storm.come_back(result):
                        break
                await _check(result, target, streams, users)
        finally:
            await connection.close()


@dataclass(slots=True)
class _Storm:
    """What takes part in it."""

    target: Target
    streams: Streams
    makers: list[list[Sender]]
    _turn: int = 0

    async def come_back(self, result: ProfileResult) -> bool:
        """Reconnect everyone while others send; false when somebody does not come back."""
        returned = _Return(self.streams)
        self.streams.on_piece = returned.on_piece
        stop, before = asyncio.Event(), self.streams.tally.turned_away
        async with self.target.posts(SENDERS) as posts:
            meter = self.target.meter()
            load = posts.open_loop(self._next_request, per_second=SENDS_PER_SECOND, seconds=GIVE_UP_SECONDS, stop=stop)
            sending = asyncio.ensure_future(load)
            start = time.perf_counter()
            try:
                await self.streams.reopen(concurrency=len(self.streams.subscribers))
                open_seconds = time.perf_counter() - start
                async with asyncio.timeout(GIVE_UP_SECONDS):
                    await returned.everyone.wait()
            except TimeoutError:
                missing = len(returned.goals) - len(returned.moments)
                result.errors.append(f"{missing} streams were not back after {GIVE_UP_SECONDS:.0f} s.")
                return False
            finally:
                stop.set()
                sends = await sending
        result.add_cpu(meter.shares())
        result.add("all streams open", "s", open_seconds, less=True)
        result.add("all streams back and caught up", "s", max(returned.moments) - start, target=BACK_SECONDS, less=True)
        result.add("p99 of sends meanwhile", "ms", sends.latency.percentile(99) * 1000, target=SEND_P99_MS, less=True)
        result.add("streams told to come back later", "", float(self.streams.tally.turned_away - before), less=True)
        result.errors += sends.errors
        _draw(result, [moment - start for moment in sorted(returned.moments)], sends)
        return True

    def _next_request(self, client: int) -> bytes:
        self._turn += 1
        return self.makers[client][self._turn % len(self.makers[client])].request()


def _draw(result: ProfileResult, moments: list[float], sends: PostResult) -> None:
    back = [(moment, float(place)) for place, moment in enumerate(moments, start=1)]
    line = Line("streams", back[:: max(1, len(back) // 200)])
    curve = Line("POST", sends.latency.curve())
    result.charts = [
        Chart("Streams that have caught up (last repeat)", "line", "seconds", "streams", [line]),
        Chart("Time of sends meanwhile (last repeat)", "percentiles", "percentile", "ms", [curve]),
    ]


async def _check(result: ProfileResult, target: Target, streams: Streams, users: list[str]) -> None:
    """Every stream is where its inbox is."""
    connection = await target.database()
    try:
        rows = await connection.fetch("SELECT user_id, head FROM inbox_heads WHERE user_id = ANY ($1)", users)
    finally:
        await connection.close()
    heads = {row["user_id"]: row["head"] for row in rows}
    await streams.until(sum(heads.values()), timeout_seconds=5)
    behind = sum(heads[s.key] - (s.counter.last or 0) for s in streams.subscribers)
    result.checked += streams.tally.received
    faults = streams.tally.faults()
    faults["lost"] += abs(behind)
    result.add_faults(faults)


PROFILE: Final = Profile(
    "storm",
    "Reconnect storm",
    "10,000 streams are reset at once, 10 messages for each are committed meanwhile, and all reconnect at the same "
    "moment with their cursors (browsers would spread over 1 to 4 s). 100 sends/s go on. At the end every stream "
    "is compared with its inbox.",
    measure,
)
