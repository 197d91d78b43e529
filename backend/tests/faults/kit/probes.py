"""What somebody sees of a fault who only asks: for a page of a list, and whether a process is ready."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import aiohttp
import orjson

from tests.faults.kit.cluster import Cluster
from tests.support.servers import token_for

LIST, READY = "/api/v1/conversations?limit=1", "/ready"
PAUSE_SECONDS = 0.1
GIVE_UP_SECONDS = 10.0
# The route gives up after 5 s, the probe after 1 s; the rest is this machine.
LIST_SECONDS, READY_SECONDS = 6.0, 3.0
KEPT_SECONDS = 1.0  # what the probe has found is what it says


class Answer(NamedTuple):
    """`says`: what the probe says of PostgreSQL, empty for the list."""

    port: int
    path: str
    invoked_at: float
    ended_at: float
    status: int
    retry_after: str
    says: str


@asynccontextmanager
async def probing(cluster: Cluster, user: str, answers: list[Answer]) -> AsyncIterator[None]:
    """Ask every process over and over until the end of the block, and add every answer to `answers`."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True),
        timeout=aiohttp.ClientTimeout(total=GIVE_UP_SECONDS),
        headers={"Authorization": f"Bearer {token_for(user)}"},
    ) as session:
        asking = [
            asyncio.create_task(_ask_on(session, server.port, path, answers))
            for server in cluster.servers
            for path in (LIST, READY)
        ]
        try:
            yield
        finally:
            for task in asking:
                task.cancel()
            ends = await asyncio.gather(*asking, return_exceptions=True)
        for end in ends:  # one that got no answer at all
            if isinstance(end, Exception):
                raise end


async def _ask_on(session: aiohttp.ClientSession, port: int, path: str, answers: list[Answer]) -> None:
    while True:
        invoked_at = time.monotonic()
        async with session.get(f"http://127.0.0.1:{port}{path}") as response:
            body = orjson.loads(await response.read())
            after = response.headers.get("Retry-After", "")
        says = body["postgresql"] if path == READY else ""
        answers.append(Answer(port, path, invoked_at, time.monotonic(), response.status, after, says))
        await asyncio.sleep(PAUSE_SECONDS)


async def until_well(answers: Sequence[Answer], *, within_seconds: float) -> None:
    """Wait until every process answers every question, asked from now on, with 200."""
    since = time.monotonic()
    unwell = {(answer.port, answer.path) for answer in answers}
    while unwell and time.monotonic() < since + within_seconds:
        await asyncio.sleep(PAUSE_SECONDS)
        unwell -= {
            (answer.port, answer.path) for answer in answers if answer.invoked_at >= since and answer.status == 200
        }
    assert not unwell, f"not well after {within_seconds} s: {unwell}"


def complaints(
    answers: Sequence[Answer], faults: Sequence[tuple[float, float, str]], *, back_seconds: float
) -> set[str]:
    """Say what is wrong: late or other answers, and 503 while all is well. Nothing is best."""
    found = set()
    for answer in answers:
        path, seconds = answer.path.partition("?")[0], answer.ended_at - answer.invoked_at
        is_hurt = any(answer.ended_at >= begin and answer.invoked_at <= end + back_seconds for begin, end, _ in faults)
        if answer.status not in ({200, 503} if is_hurt else {200}):
            found.add(f"{path}: {answer.status} {'in' if is_hurt else 'without'} a fault")
        if answer.path == LIST and answer.status == 503 and not answer.retry_after.isdecimal():
            found.add(f"{path}: 503 without Retry-After")
        if answer.path == READY and (answer.status == 200) != (answer.says == "up"):
            found.add(f"{path}: {answer.status}, though PostgreSQL is said to be {answer.says}")
        if seconds > (LIST_SECONDS if answer.path == LIST else READY_SECONDS):
            found.add(f"{path}: an answer after {seconds:.1f} s")
    return found


def unnoticed(answers: Sequence[Answer], faults: Sequence[tuple[float, float, str]]) -> set[str]:
    """Name what never was 503 in one of the faults, by process, question and fault."""
    return {
        f"{port}{path} in {what}, number {number}"
        for number, (begin, end, what) in enumerate(faults)
        for port, path in {(answer.port, answer.path) for answer in answers}
        if not any(
            (answer.port, answer.path, answer.status) == (port, path, 503)
            and answer.ended_at >= begin
            and answer.invoked_at <= end + KEPT_SECONDS
            for answer in answers
        )
    }
