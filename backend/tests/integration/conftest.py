"""A world for each test module: the services on a database of their own."""

from collections.abc import AsyncIterator

import pytest

from app.db.sends import Send, SendOutcome, send_batch
from app.embedded import PostgresProcess
from tests.batches import Batch, writers
from tests.world import World, new_world


@pytest.fixture(scope="module")
async def shared_world(postgres: PostgresProcess, template: str) -> AsyncIterator[World]:
    """One world for the module: connecting costs more than most tests."""
    url = postgres.url.rpartition("/")[0] + "/" + template
    async with new_world(url) as world:
        yield world


@pytest.fixture
def world(shared_world: World) -> World:
    """The services, with nothing told yet. Users and conversations of other tests are strangers."""
    shared_world.outlet.take()
    return shared_world


@pytest.fixture
async def batch(world: World) -> AsyncIterator[Batch]:
    async with writers(world, 1) as (connection,):

        async def run(*sends: Send, lock_timeout_ms: int = 2000) -> list[SendOutcome]:
            return await send_batch(connection, sends, lock_timeout_ms=lock_timeout_ms)

        yield run
