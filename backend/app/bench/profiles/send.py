"""Durable sends: as many as 128 clients can make, and one client alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from app.bench.messages import Sender
from app.bench.plan import Profile
from app.bench.results import Chart, Line

if TYPE_CHECKING:
    from app.bench.plan import Run
    from app.bench.posts import PostResult
    from app.bench.results import ProfileResult
    from app.bench.streams import Streams
    from app.bench.target import Target

SENDS: Final = 5000  # a second
ALONE_MS: Final = 1.0
ECHO_SECONDS: Final = 5.0
WARM_UP_SECONDS: Final = 1.0


async def measure(run: Run, result: ProfileResult) -> None:
    """Every sender has a stream, which gets the echo of each of its messages; recipients are away."""
    async with run.stage.server() as target:
        clients = run.plan.size(128, 8)
        senders, recipients = target.user_ids(clients, "sender"), target.user_ids(clients, "recipient")
        await target.make_users([*senders, *recipients])
        makers = [Sender(target, sender, recipient_id=other) for sender, other in zip(senders, recipients, strict=True)]
        with target.streams() as streams:
            await streams.open(target.stream_requests(senders))
            async with target.posts(clients) as posts:
                run.progress.step("warming up")
                done = await posts.closed_loop(lambda n: makers[n].request(), seconds=WARM_UP_SECONDS)
                await target.analyze()
                sent = done.answered
                for repeat in range(run.plan.repeats):
                    run.progress.step(f"repeat {repeat + 1} of {run.plan.repeats}: {sent:,} sent")
                    meter = target.meter()
                    many = await posts.closed_loop(lambda n: makers[n].request(), seconds=run.plan.seconds)
                    result.add_cpu(meter.shares())
                    async with target.posts(1) as alone:
                        single = await alone.closed_loop(lambda n: makers[n].request(), seconds=run.plan.seconds / 2)
                    sent += many.answered + single.answered
                    _note(result, many, single, clients)
            await _check(result, target, streams, sent, recipients)


def _note(result: ProfileResult, many: PostResult, single: PostResult, clients: int) -> None:
    result.add(f"durable sends, {clients} in flight", "/s", many.per_second, target=SENDS)
    result.add(f"p50 of a send, {clients} in flight", "ms", many.latency.percentile(50) * 1000, less=True)
    result.add(f"p99 of a send, {clients} in flight", "ms", many.latency.percentile(99) * 1000, less=True)
    result.add("p50 of a send, one client", "ms", single.latency.percentile(50) * 1000, target=ALONE_MS, less=True)
    result.add("p99 of a send, one client", "ms", single.latency.percentile(99) * 1000, less=True)
    result.errors += many.errors + single.errors
    bars = Line("sends", list(enumerate(result.metrics[0].values, start=1)))
    lines = [Line(f"{clients} in flight", many.latency.curve()), Line("one client alone", single.latency.curve())]
    result.charts = [
        Chart("Durable sends/s", "bars", "repeat", "/s", [bars], SENDS),
        Chart("Time of a send (last repeat)", "percentiles", "percentile", "ms", lines),
    ]


async def _check(result: ProfileResult, target: Target, streams: Streams, sent: int, recipients: list[str]) -> None:
    """Every answer of 201 has its echo, and its place in the recipient's inbox."""
    await streams.until(sent, timeout_seconds=ECHO_SECONDS)
    result.checked += streams.tally.received
    faults = streams.tally.faults()
    faults["lost"] += max(0, sent - streams.tally.received - faults["lost"])
    if target.database_url is not None:
        connection = await target.database()
        try:
            stored = await connection.fetchval(
                "SELECT sum(head)::bigint FROM inbox_heads WHERE user_id = ANY ($1)", recipients
            )
        finally:
            await connection.close()
        faults["not stored"] = max(0, sent - stored)
    result.add_faults(faults)


PROFILE: Final = Profile(
    "send",
    "Durable sends",
    "128 clients send one message after another to users who are away; each answer comes after the commit (fsync on), "
    "each message is published twice on Redis, and its echo is received on the sender's stream. Then one client alone.",
    measure,
)
