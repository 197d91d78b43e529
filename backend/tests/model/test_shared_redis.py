"""Two deployments on one Redis. It has one Pub/Sub, whatever the number of the database; operators are told not to."""

from __future__ import annotations

import pytest

from app import events
from tests.model.test_head_check import check_of, names, opened
from tests.model.test_stream_model import World, _parsed


def foreign_change(number: int) -> events.Frame:
    return _parsed(events.change_frame(number, events.change_body("message_edited", {"id": f"foreign {number}"})))


@pytest.mark.parametrize("first", [1, 3])
async def test_a_change_whose_number_a_foreign_one_has_taken_is_told_of(first: int):
    """Protocol 3.3: the number says that nothing is missing, and it is not what was sent."""
    world = World()
    world.change = first - 1
    await opened(world)
    for number in range(first, first + 2):
        world.stream.on_frame(foreign_change(number))
    for _ in range(2):
        world.stream.on_frame(world.commit_change())
    assert names(world)[-3:] == ["message_edited", "message_edited", "resync"]
    world.stream.on_frame(world.commit_change())
    assert names(world)[-1] == "message_edited"
    await check_of(world)._check([world.stream])
    assert names(world)[-1] == "message_edited"


async def test_a_change_that_is_published_twice_is_no_other_change():
    """Protocol 3.3: a publish that was not answered is repeated."""
    world = World()
    await opened(world)
    change = world.commit_change()
    world.stream.on_frame(change)
    world.stream.on_frame(_parsed(bytes(bytearray(change.raw))))
    assert names(world)[-2:] == ["connected", "message_edited"]


async def test_a_late_change_that_the_client_was_told_to_ask_for_is_not_told_of_again():
    """Protocol 6.3: what a `resync` covers, it covers once."""
    world = World()
    await opened(world)
    world.stream.on_frame(world.commit_change())
    late = world.commit_change()
    await world.head_check()
    world.stream.on_frame(late)
    assert names(world)[-2:] == ["message_edited", "resync"]
