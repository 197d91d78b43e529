"""What one message costs, by the size of the group: PostgreSQL's writes, bytes and processor time, and the server's.

    .venv/bin/python benchmarks/costs.py              # a table
    .venv/bin/python benchmarks/costs.py --json

No stream is open: what deliveries cost is measured by `gapless bench --profile fanout`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict, dataclass

import asyncpg
import uvloop

from app.bench import machine as machines
from app.bench.messages import Sender
from app.bench.procs import cpu_seconds
from app.bench.stage import OwnStage, own_stage
from app.bench.tables import make_group
from app.bench.target import Target

SIZES = (2, 10, 50, 100, 1000)
WARM_UP_MESSAGES = 64  # the first change of a page after a checkpoint writes the whole page
CLIENTS = 16
SECONDS = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=2000, help="of two people; wider groups get fewer")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    described = machines.describe()
    with own_stage(is_shared=False) as stage, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        costs = runner.run(measure(stage, options.messages))
    if options.json:
        print(json.dumps({"machine": asdict(described), "costs": [asdict(cost) for cost in costs]}))
        return
    print("| members | WAL bytes | table and index bytes | PostgreSQL CPU | server CPU |")
    print("|---|---|---|---|---|")
    for cost in costs:
        print(
            f"| {cost.members:,} | {cost.wal_bytes:,.0f} | {cost.disk_bytes:,.0f} | "
            f"{cost.postgres_us:,.0f} µs | {cost.server_us:,.0f} µs |"
        )
    print(f"\n{described.cpu}, commit {described.commit}, {described.started_at}", file=sys.stderr)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one message, on average."""

    members: int
    messages: int
    wal_bytes: float
    disk_bytes: float
    postgres_us: float
    server_us: float


@dataclass(frozen=True, slots=True)
class Counters:
    wal_bytes: int
    disk_bytes: int
    postgres_seconds: float
    server_seconds: float


async def measure(stage: OwnStage, messages: int) -> list[Cost]:
    return [await measure_size(stage, size, max(100, min(messages, 50_000 // size))) for size in SIZES]


async def measure_size(stage: OwnStage, size: int, messages: int) -> Cost:
    async with stage.server() as target:
        print(f"{size} members, {messages} messages", file=sys.stderr)
        users = target.user_ids(size, f"cost{size}")
        await target.make_users(users)
        connection = await target.database()
        try:
            group_id = await make_group(connection, users[0], users[1:])
            senders = [Sender(target, user, conversation_id=group_id) for user in users[:CLIENTS]]
            await connection.execute("CHECKPOINT")
            await send(target, senders, WARM_UP_MESSAGES)
            await target.analyze()
            before = await count(connection, target)
            await send(target, senders, messages)
            after = await count(connection, target)
        finally:
            await connection.close()
    return Cost(
        members=size,
        messages=messages,
        wal_bytes=(after.wal_bytes - before.wal_bytes) / messages,
        disk_bytes=(after.disk_bytes - before.disk_bytes) / messages,
        postgres_us=(after.postgres_seconds - before.postgres_seconds) / messages * 1e6,
        server_us=(after.server_seconds - before.server_seconds) / messages * 1e6,
    )


async def send(target: Target, senders: list[Sender], messages: int) -> None:
    async with target.posts(CLIENTS) as posts:
        done = await posts.closed_loop(
            lambda client: senders[client % len(senders)].request(), seconds=SECONDS, most=messages
        )
    if done.failed or done.answered != messages:
        sys.exit(f"{done.answered} of {messages} sends were answered, {done.failed} failed: {done.errors}")


async def count(connection: asyncpg.Connection, target: Target) -> Counters:
    row = await connection.fetchrow(
        """
        SELECT pg_current_wal_insert_lsn() - '0/0' AS wal_bytes,
               (SELECT sum(pg_total_relation_size(relid)) FROM pg_stat_user_tables) AS disk_bytes
        """
    )
    return Counters(
        *map(int, row),
        postgres_seconds=cpu_seconds(target.pids["PostgreSQL"]),
        server_seconds=cpu_seconds(target.pids["server"]),
    )


if __name__ == "__main__":
    main()
