"""What the checker is for: under one load and the same faults it finds tutorials guilty, and Gapless not.

Every line that these runs print begins with the seed; SEED=… plays them again.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg
import pytest

from tests.faults.kit.link import Link
from tests.history.checker import check
from tests.history.findings import Finding, Kind
from tests.history.naive_server import NAIVETIES, NO_REPAIR, PUBLISH_BEFORE_COMMIT, QUERY_THEN_SUBSCRIBE, SEQUENCE_IDS
from tests.history.plan import Shape, make_plan
from tests.history.rest import Rest
from tests.history.run import Run, Stage, play
from tests.history.summary import describe, summarize
from tests.support.redis import redis_command
from tests.support.servers import BACKEND, token_for

pytestmark = pytest.mark.faults

SEED = int(os.environ.get("SEED", "20261123"))
SHAPE = Shape(
    users=24, devices_per_user=2, groups=8, largest_group=12, direct_pairs=10, sends_per_second=150, seconds=2.5
)
# Each way. Next door a subscription is renewed so fast that a quiet machine loses nothing for seconds.
REDIS_AWAY_SECONDS = 0.001
RECONNECT_EVERY_SECONDS = 0.012
KILL_EVERY_SECONDS = 0.25
LOST_FOR_GOOD_SECONDS = 1.5  # three ticks of the naive server: nothing that it does comes later
# Few users that hear nearly everything: who is not subscribed for a moment misses something.
BUSY = replace(SHAPE, users=8, groups=6, smallest_group=4, largest_group=8, direct_pairs=2, sends_per_second=80)
# Commits that take their time, and some that fail at the last moment: by count, so that no draw is needed.
HINDRANCE = """
    CREATE SEQUENCE {schema}.turns;
    CREATE FUNCTION {schema}.hold() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF nextval('{schema}.turns') % 12 = 0 THEN PERFORM pg_sleep(0.04); END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER hold AFTER INSERT ON {schema}.messages FOR EACH ROW EXECUTE FUNCTION {schema}.hold();
    CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF currval('{schema}.turns') % 40 = 7 THEN RAISE EXCEPTION 'induced' USING ERRCODE = '40001'; END IF;
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON {schema}.messages DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION {schema}.refuse();
"""


@pytest.mark.parametrize(
    "naiveties",
    [
        pytest.param([], id="none"),
        pytest.param([SEQUENCE_IDS], id="sequence ids"),
        pytest.param([PUBLISH_BEFORE_COMMIT], id="publish before commit"),
        pytest.param([NO_REPAIR], id="no repair"),
        pytest.param(list(NAIVETIES), id="all"),
    ],
)
async def test_each_naivety_loses_messages_and_none_loses_none(naiveties, database_url, valkey):
    async with far_away(valkey) as redis_url, naive_server(database_url, redis_url, naiveties) as port:
        await hinder(database_url, "naive")
        stage = Stage([port], token_for, is_dense=SEQUENCE_IDS not in naiveties, has_lists=False)
        patience = LOST_FOR_GOOD_SECONDS if naiveties else 20
        _, found = await observe(stage, everything(valkey.port), settle_seconds=patience)
    if naiveties:
        assert of_kind(found, Kind.LOST) > 0
    else:
        assert found == []


@pytest.mark.parametrize("order", [[], [QUERY_THEN_SUBSCRIBE]], ids=["subscribe, then query", "query, then subscribe"])
async def test_to_query_and_then_subscribe_loses_what_is_sent_in_between(order, database_url, valkey):
    """Repair would hide it, and Redis losses would hide that it is this; so without either."""
    async with far_away(valkey) as redis_url, naive_server(database_url, redis_url, [NO_REPAIR, *order]) as port:
        patience = LOST_FOR_GOOD_SECONDS if order else 20
        stage = Stage([port], token_for, has_lists=False)
        _, found = await observe(stage, reconnects, BUSY, settle_seconds=patience)
    assert (of_kind(found, Kind.LOST) > 0) == bool(order)


async def test_the_real_server_loses_nothing_under_the_same_load_and_faults(start_server, database_url, valkey):
    async with far_away(valkey) as redis_url:
        one, other = await asyncio.gather(start_server(redis_url=redis_url), start_server(redis_url=redis_url))
        await hinder(database_url, "public")
        history, found = await observe(Stage([one.port, other.port], token_for), everything(valkey.port))
    assert found == []
    assert summarize(history, found).resyncs == 0  # nobody was told to load it all anew, either


# --- The run ----------------------------------------------------------------------------------------


async def observe(stage: Stage, faults, shape: Shape = SHAPE, *, settle_seconds: float = 20):
    history = await play(make_plan(shape, SEED), stage, faults=faults, hurry=20, settle_seconds=settle_seconds)
    assert len(history.streams) > 1.5 * len(history.devices)  # there were reconnects to lose something in
    assert bool(history.faults) == (faults is not reconnects)
    found = check(history)
    print(describe(history, found))  # noqa: T201 - the seed and the numbers of docs/reliability.md
    return history, found


def everything(redis_port: int):
    async def both(run: Run) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(reconnects(run))
            group.create_task(redis_kills(run, redis_port))

    return both


async def reconnects(run: Run) -> None:
    rng = random.Random(run.plan.seed)
    while True:
        await asyncio.sleep(RECONNECT_EVERY_SECONDS)
        rng.choice(run.devices).reconnect()


async def redis_kills(run: Run, redis_port: int) -> None:
    while True:
        await asyncio.sleep(KILL_EVERY_SECONDS)
        began_at = time.monotonic()
        await redis_command(redis_port, "CLIENT KILL TYPE pubsub")
        run.history.faults.append((began_at, time.monotonic(), "subscriptions are killed"))


async def hinder(database_url: str, schema: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(HINDRANCE.format(schema=schema))
    finally:
        await connection.close()


@asynccontextmanager
async def far_away(valkey) -> AsyncIterator[str]:
    async with Link(valkey.port) as link:
        link.delay_seconds = REDIS_AWAY_SECONDS
        yield f"redis://127.0.0.1:{link.port}/0"


@asynccontextmanager
async def naive_server(database_url: str, redis_url: str, naiveties: list[str]) -> AsyncIterator[int]:
    environment = {
        **{name: value for name, value in os.environ.items() if name.startswith(("PATH", "LANG", "LD_", "HOME"))},
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "NAIVETIES": " ".join(naiveties),
        "PYTHONPATH": str(BACKEND),
    }
    command = [sys.executable, "-m", "tests.history.naive_server"]
    process = subprocess.Popen(command, cwd=BACKEND, env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), 20)
        port = int(line.split()[1])
        async with Rest([port], token_for, random.Random(SEED)) as rest:
            await rest.insist("GET", "/users/me", "somebody")
        yield port
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


def of_kind(found: list[Finding], kind: Kind) -> int:
    return sum(one.kind is kind for one in found)
