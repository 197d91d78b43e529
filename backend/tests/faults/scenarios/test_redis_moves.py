"""The names of Redis and PostgreSQL lead to other addresses than before."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from tests.faults.kit.link import Link
from tests.faults.scenarios.calm import LATE_SECONDS, Span
from tests.faults.scenarios.redis_watch import RECOVERED_SECONDS, is_back, longest_unnoticed

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

REDIS, POSTGRES = "redis.gapless.test", "postgres.gapless.test"
OLD, NEW = "127.0.0.2", "127.0.0.3"


@pytest.fixture
def own_names() -> list[str]:
    """A command before a server's own that gives it an /etc/hosts of its own: the file HOSTS."""
    mounts = ["sh", "-c", 'mount --bind "$HOSTS" /etc/hosts && exec "$@"', "sh"]
    for unshare in (["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"]):
        if subprocess.run([*unshare, "true"], check=False, capture_output=True, timeout=10).returncode == 0:
            return [*unshare, *mounts]
    pytest.skip("a process may not have mounts of its own here, and so no /etc/hosts of its own")


@pytest.mark.scenario(
    "F48",
    "Redis and PostgreSQL move: their names lead to other addresses",
    "used there without a restart; while Redis moves no send fails, and all comes within about two seconds",
    seconds=18,
    mounts=True,
)
async def test_names_lead_to_other_addresses(scene, own_names):
    """Protocol 8.1, 8.2: a name is looked up at every connection."""
    cluster = await scene.start(processes=0)
    hosts = scene.cluster.folder / "hosts"
    redis_moves = Span()
    lead_to(hosts, OLD)
    ports = {REDIS: cluster.valkey.port, POSTGRES: cluster.postgres.port}
    async with (
        Link(ports[REDIS], host=OLD, port=ports[REDIS]) as old_redis,
        Link(ports[REDIS], host=NEW, port=ports[REDIS]) as new_redis,
        Link(ports[POSTGRES], host=OLD, port=ports[POSTGRES]) as old_postgres,
        Link(ports[POSTGRES], host=NEW, port=ports[POSTGRES]) as new_postgres,
    ):
        for _ in range(2):
            await cluster.add_server(
                prefix=own_names,
                hosts=hosts,
                redis_url=cluster.valkey.url.replace("127.0.0.1", REDIS),
                database_url=cluster.postgres.url.replace("127.0.0.1", POSTGRES),
            )
        assert old_redis.pairs
        assert old_postgres.pairs
        assert not new_redis.pairs
        assert not new_postgres.pairs

        async def faults(_run) -> None:
            await asyncio.sleep(2)
            with scene.fault("Redis moves"), redis_moves:
                lead_to(hosts, NEW, only=REDIS)
                old_redis.refuse()
                await are_connected(new_redis, 2 * len(cluster.servers))
                await is_back(scene, cluster)
            with scene.fault("PostgreSQL moves"):
                lead_to(hosts, NEW)
                old_postgres.refuse()
                await asyncio.sleep(scene.scale.pick(gate=2, whole=6))
            await are_connected(new_postgres, len(cluster.servers))

        played = await scene.play(faults)
        before = redis_moves.settled.until
        assert played.slowest_delivery(begun_after=redis_moves.since, begun_before=before) < LATE_SECONDS
        assert all(each.message_id is not None for each in played.history.attempts if each.ended_at < redis_moves.until)
        slowest = played.slowest_delivery()
        assert slowest < longest_unnoticed(scene)


async def are_connected(link: Link, count: int) -> None:
    """Wait until so many connections go through."""
    async with asyncio.timeout(RECOVERED_SECONDS):
        while len(link.pairs) < count:
            await asyncio.sleep(0.05)


def lead_to(hosts: Path, address: str, *, only: str | None = None) -> None:
    """Say where the names lead; in place, since the file is mounted."""
    lines = ["127.0.0.1 localhost"]
    lines += [f"{address if name == (only or name) else OLD} {name}" for name in (REDIS, POSTGRES)]
    hosts.write_text("\n".join(lines) + "\n")
