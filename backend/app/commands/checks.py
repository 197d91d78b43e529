"""What `gapless doctor` looks at on this side of the network: PostgreSQL, Redis, clock, limits."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.auth import LEEWAY
from app.db.migrate import current_revision, is_recent, newest_revision
from app.db.operations import DatabaseFacts, read_facts
from app.db.pool import MAX_CONNECTIONS, Database
from app.errors import GaplessError
from app.services.messaging import redis_link
from app.services.messaging.publisher import Publisher, RedisOutlet
from app.services.messaging.redis_pubsub import PubSub
from app.services.send_queue import WRITERS
from app.settings import Settings
from app.startup import MIN_POSTGRES

Outcome = Literal["ok", "warn", "fail"]

CONNECTIONS_PER_PROCESS: Final = MAX_CONNECTIONS + WRITERS
ROUND_TRIP_SECONDS: Final = 5.0
MIN_FILES: Final = 1024
GOOD_FILES: Final = 10_000
_CLOCK_SECONDS: Final = 2.0  # more than a slow network explains


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: its outcome, and a sentence on what is so or what to do."""

    name: str
    outcome: Outcome
    sentence: str


async def check_postgresql(settings: Settings) -> list[Check]:
    """Look at the server, its settings, the schema and its clock."""
    if settings.database_url is None:
        return [Check("postgresql", "fail", "DATABASE_URL is not set.")]
    database = Database(settings.database_url)
    try:
        asked_at = datetime.now(UTC)
        facts = await read_facts(database)
        answered_at = datetime.now(UTC)
        revision = await current_revision(database)
    except GaplessError as error:
        cause = error.__cause__
        why = str(cause) or type(cause).__name__
        return [Check("postgresql", "fail", f"It does not answer at DATABASE_URL: {why}")]
    finally:
        await database.close()
    return [
        _version(facts),
        *_durability(facts, is_production=settings.is_production),
        _standby(facts),
        _connections(facts, settings.workers),
        _revision(revision),
        _clock(facts.now, asked_at, answered_at),
    ]


async def check_redis(settings: Settings) -> list[Check]:
    """Look at the server, and send a probe the way messages go."""
    if settings.redis_url is None:
        return [Check("redis", "fail", "REDIS_URL is not set.")]
    try:
        async with Redis.from_url(settings.redis_url, socket_connect_timeout=2, socket_timeout=2) as redis:
            info = await redis.info("server")
            cluster = await redis.info("cluster")
    except (RedisError, OSError) as error:
        why = f"It does not answer at REDIS_URL: {error} Messages would arrive up to about two seconds late."
        return [Check("redis", "fail", why)]
    except Exception as error:  # noqa: BLE001 - the library's own words for an address that it cannot use
        return [Check("redis", "fail", f"REDIS_URL cannot be used: {type(error).__name__}: {error}")]
    version = info.get("valkey_version") or info.get("redis_version") or "of unknown version"
    name = "Valkey" if "valkey_version" in info else "Redis"
    checks = [Check("redis", "ok", f"{name} {version} answers.")]
    if cluster.get("cluster_enabled"):
        checks.append(
            Check("redis cluster", "fail", "This is a node of a cluster, which is not supported: use one server.")
        )
    return [*checks, await _round_trip(settings.redis_url)]


def check_files() -> Check:
    """Look at how many connections a process may hold."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit < MIN_FILES or limit >= GOOD_FILES:
        outcome: Outcome = "fail" if limit < MIN_FILES else "ok"
    else:
        outcome = "warn"
    advice = "" if outcome == "ok" else f" Raise it for the server: ulimit -n {GOOD_FILES * 10}, or LimitNOFILE=."
    return Check("open files", outcome, f"A process may hold {limit}; each stream takes one.{advice}")


def _version(facts: DatabaseFacts) -> Check:
    number = f"{facts.version // 10_000}.{facts.version % 10_000}"
    if facts.version < MIN_POSTGRES:
        return Check("postgresql", "fail", f"This is PostgreSQL {number}; 15 or newer is needed.")
    if facts.is_standby:
        return Check("postgresql", "fail", f"PostgreSQL {number} is a standby: point DATABASE_URL at the primary.")
    return Check("postgresql", "ok", f"PostgreSQL {number} answers.")


def _durability(facts: DatabaseFacts, *, is_production: bool) -> list[Check]:
    checks = []
    for name in ("fsync", "synchronous_commit", "full_page_writes"):
        value = getattr(facts, name)
        if value == "off":
            outcome: Outcome = "fail" if is_production else "warn"
            sentence = "It is off: a crash would lose messages that were acknowledged. Set it to on."
        else:
            outcome, sentence = "ok", f"It is {value}."
        checks.append(Check(name, outcome, sentence))
    return checks


def _standby(facts: DatabaseFacts) -> Check:
    if facts.synchronous_standby_names:
        return Check("standby", "ok", f"Commits wait for {facts.synchronous_standby_names}.")
    if facts.standbys:
        why = "A standby is attached, and commits do not wait for it: a fail-over can lose acknowledged messages. "
        return Check("standby", "warn", f"{why}Set synchronous_standby_names.")
    return Check("standby", "ok", "There is none: what is committed survives a crash, not the loss of the disk.")


def _connections(facts: DatabaseFacts, workers: int) -> Check:
    needed = workers * CONNECTIONS_PER_PROCESS
    others = f"{facts.connections} are open now"
    if needed > facts.max_connections:
        sentence = (
            f"{workers} workers may need {needed}, the server allows {facts.max_connections}. Raise max_connections."
        )
        return Check("max_connections", "fail", sentence)
    outcome: Outcome = "warn" if needed > facts.max_connections // 2 else "ok"
    sentence = f"The server allows {facts.max_connections}; WORKERS={workers} may need {needed} ({others})."
    return Check("max_connections", outcome, sentence)


def _revision(revision: str | None) -> Check:
    needed = newest_revision()
    if revision == needed:
        return Check("migrations", "ok", f"The schema is at revision {revision}.")
    if is_recent(revision):
        sentence = f"The schema is at {revision}, newer than {needed} of this version: finish the upgrade."
        return Check("migrations", "warn", sentence)
    sentence = f"The schema is at {revision or 'none'}, this version needs {needed}. Run: gapless migrate"
    return Check("migrations", "fail", sentence)


def _clock(theirs: datetime, asked_at: datetime, answered_at: datetime) -> Check:
    # Anywhere between question and answer: only what is outside is a difference.
    seconds = max((theirs - answered_at).total_seconds(), (asked_at - theirs).total_seconds(), 0.0)
    if seconds > LEEWAY.total_seconds():
        sentence = f"This clock and PostgreSQL's differ by {seconds:.0f} s: tokens may be refused. Run an NTP service."
        return Check("clock", "fail", sentence)
    outcome: Outcome = "warn" if seconds > _CLOCK_SECONDS else "ok"
    return Check("clock", outcome, f"This clock and PostgreSQL's differ by {seconds:.1f} s.")


async def _round_trip(redis_url: str) -> Check:
    try:  # as the server does, which has a connection of its own making
        link = await redis_link.open_link(redis_url, on_reply=_ignore, on_lost=_ignore, name="gapless-doctor")
    except Exception as error:  # noqa: BLE001 - whatever it is, the server would meet it, too
        why = f"The server's own connection to REDIS_URL cannot be made: {type(error).__name__}: {error}"
        return Check("pub/sub", "fail", why)
    link.abort()
    outlet = RedisOutlet(redis_url)
    pubsub = PubSub(redis_url, Publisher(outlet))
    started_at = time.monotonic()
    async with _running(outlet.run()), _running(pubsub.run()):
        with suppress(TimeoutError):
            async with asyncio.timeout(ROUND_TRIP_SECONDS):
                while not pubsub.is_up:  # noqa: ASYNC110 - it tells nobody else, and this is a command
                    await asyncio.sleep(0.005)
                ms = (time.monotonic() - started_at) * 1000
                return Check("pub/sub", "ok", f"A probe came back {ms:.0f} ms after connecting.")
    sentence = "A probe that was published did not come back. See the ACL: SUBSCRIBE and PUBLISH on user:* and probe:*."
    return Check("pub/sub", "fail", sentence)


def _ignore(*_: object) -> None: ...


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
