"""What must be true of the database, the log and the answers after whatever PostgreSQL went through."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Iterable

from app.db.pool import FOR_STREAMS, MAX_CONNECTIONS
from tests.faults.kit.cluster import Cluster
from tests.faults.kit.vitals import counted
from tests.history.load import Load
from tests.history.records import Attempt, History, Outcome
from tests.history.run import Run
from tests.support.servers import Server, new_user

BACK_SECONDS = 5.0  # after PostgreSQL answers again, everything does
POOL, FOR_REQUESTS = MAX_CONNECTIONS, MAX_CONNECTIONS - FOR_STREAMS  # connections per process
LOCKED_SECONDS = 1.2  # for which nobody gets an answer: less than any deadline

# Each finds what must not be there.
_WRONG = {
    "inboxes with a hole, or a head that is not their end": """
        SELECT count(*) FROM inbox_heads AS h
        LEFT JOIN (SELECT user_id, count(*) AS n, min(seq) AS low, max(seq) AS high FROM inbox GROUP BY 1) AS i
            USING (user_id)
        WHERE h.head <> coalesce(i.n, 0) OR (i.n > 0 AND (i.low <> 1 OR i.high <> i.n))""",
    "conversations whose messages are not numbered from 1 to the last": """
        SELECT count(*) FROM conversations AS c
        LEFT JOIN (SELECT conversation_id, count(*) AS n, max(seq) AS high FROM messages GROUP BY 1) AS m
            ON m.conversation_id = c.id
        WHERE c.last_seq <> coalesce(m.n, 0) OR m.high <> m.n""",
    "messages that lie in an inbox twice": """
        SELECT count(*) FROM (SELECT FROM inbox GROUP BY user_id, message_id HAVING count(*) > 1) AS twice""",
    "deadlocks": "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()",
}
# What a log holds only after a defect: names of tracebacks, of asyncpg's misuse, of asyncio's orphans.
_DEFECTS = re.compile(r"Traceback|another operation|never retrieved|was never awaited|_failed\b", re.ASCII)


async def wrong_rows(cluster: Cluster) -> list[str]:
    """Say what is wrong in the tables; nothing is best."""
    connection = await cluster.postgres.connect()
    try:
        counts = {what: await connection.fetchval(sql) for what, sql in _WRONG.items()}
    finally:
        await connection.close()
    return [f"{count} {what}" for what, count in counts.items() if count]


def defects(cluster: Cluster) -> list[str]:
    """Give log lines that speak of a defect."""
    lines = [line for server in cluster.servers for line in server.log.read_text(errors="replace").splitlines()]
    return [line[:300] for line in lines if _DEFECTS.search(line)][:5]


async def usable_connections(cluster: Cluster) -> int:
    """Count the connections that requests use when there are more than the pools have for them. Whole ones use all."""
    users = [(server, new_user("reader")) for server in cluster.servers for _ in range(2 * FOR_REQUESTS)]
    await asyncio.gather(*(server.know(user) for server, user in users))
    locking, counting = await asyncio.gather(cluster.postgres.connect(), cluster.postgres.connect())
    most = 0
    try:
        async with locking.transaction():
            await locking.execute("LOCK TABLE conversations IN ACCESS EXCLUSIVE MODE")
            asking = asyncio.gather(*(server.call("GET", "/conversations", user=user) for server, user in users))
            until = time.monotonic() + LOCKED_SECONDS
            while time.monotonic() < until and most < FOR_REQUESTS * len(cluster.servers):
                most = max(most, await counting.fetchval(_WAITING))
                await asyncio.sleep(0.05)
        await asking
    finally:
        locking.terminate()
        counting.terminate()
    return most


_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'gapless' AND wait_event_type = 'Lock'"


async def counted_by_all(servers: Iterable[Server], name: str) -> int:
    """Add up what all processes have counted under this name of their `Stats`."""
    return sum([await counted(server, name) for server in servers])


def failed_when_well(history: History) -> int:
    """Count the attempts that were not acknowledged though no fault was on, nor had been for 5 s."""
    ends = [0.0, *(end + BACK_SECONDS for _, end, _ in history.faults)]
    begins = [*(begin for begin, _, _ in history.faults), math.inf]
    failed = [each for each in history.attempts if each.outcome is not Outcome.ACKNOWLEDGED]
    return sum(
        well_from <= each.invoked_at and each.ended_at <= well_to
        for well_from, well_to in zip(ends, begins, strict=True)
        for each in failed
    )


def failed_by_fault(history: History) -> list[int]:
    """Per fault, how many sends under way or begun in it were answered with 503."""
    return [
        sum(each.status == 503 and each.ended_at >= begin and each.invoked_at <= end for each in history.attempts)
        for begin, end, _ in history.faults
    ]


def back_after(history: History) -> float:
    """The longest from the end of a fault to an acknowledgement of a send that was begun after it."""
    return max(
        min(
            (each.ended_at - end for each in history.attempts if each.message_id and each.invoked_at >= end),
            default=math.inf,
        )
        for _, end, _ in history.faults
    )


def slowest(attempts: Iterable[Attempt]) -> float:
    """The longest that one of them took, in seconds."""
    return max((each.ended_at - each.invoked_at for each in attempts), default=0.0)


def bound_by(calm_seconds: float, stalled_seconds: float) -> float:
    """How long may take, in a fault, what at its longest took so long in the calm of the same run.

    `stalled_seconds`: for which the machine itself stood still.
    """
    return 3 * calm_seconds + 0.5 + stalled_seconds


def longest_silence(history: History) -> float:
    """The longest that any stream was silent between two events, in seconds."""
    heard_at: dict[int, float] = {}
    longest = 0.0
    for event in history.events:
        longest = max(longest, event.at - heard_at.get(event.stream, event.at))
        heard_at[event.stream] = event.at
    return longest


def kept_streams(history: History) -> bool:
    """Whether no device ever lost its stream."""
    return len(history.streams) == len(history.devices)


def sender(run: Run) -> Load:
    """What sends messages of a scenario's own and writes them down as the load does."""
    return Load(run.plan, run.rest, run.history, run.conversations)
