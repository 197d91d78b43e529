"""One run from an empty server to a history: people, load with faults, healing, sentinels, the final state."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from tests.history.device import Device
from tests.history.load import Load
from tests.history.plan import Plan, Send, Talk, new_key
from tests.history.recorder import Recorder
from tests.history.records import History, Membership
from tests.history.rest import Rest

OPEN_SECONDS = 20.0
AT_ONCE = 16


@dataclass(slots=True)
class Stage:
    """The server under test: equal processes by port, and how to sign in."""

    ports: Sequence[int]
    token_for: Callable[[str], str]
    is_dense: bool = True


@dataclass(slots=True)
class Run:
    """What faults may touch."""

    plan: Plan
    recorder: Recorder
    rest: Rest
    rng: random.Random
    devices: list[Device] = field(default_factory=list)
    conversations: dict[int, str] = field(default_factory=dict)

    @property
    def history(self) -> History:
        return self.recorder.history


Faults = Callable[[Run], Awaitable[None]]


async def play(
    plan: Plan,
    stage: Stage,
    *,
    faults: Faults | None = None,
    hurry: float = 1,
    settle_seconds: float = 20,
    tail_seconds: float | None = None,
) -> History:
    """Run the plan with faults in between, and give what was seen.

    `faults` begins with the load and is cancelled at its end; it must leave everything healed, also then.
    With `tail_seconds` it is the other way round: that long after `faults` has ended, the load does.
    Whatever has not come `settle_seconds` after the sentinels is left to the checker.
    """
    recorder = Recorder(History(plan.seed, stage.is_dense))
    async with Rest(stage.ports, stage.token_for, random.Random(plan.seed + 2)) as rest:
        run = Run(plan, recorder, rest, random.Random(plan.seed + 3))
        await _set_up(run)
        tasks = _start_devices(run, hurry)
        try:
            await _bounded((device.is_open.wait() for device in run.devices), OPEN_SECONDS, "devices do not open")
            load = Load(plan, rest, run.history, run.conversations)
            await _load_with_faults(load, run, faults, tail_seconds)
            await load.settle()
            await _sentinels(load, run, settle_seconds)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for device in run.devices:
            run.history.states[device.name] = device.copies.messages()
        await _read_store(run)
    return run.history


async def _set_up(run: Run) -> None:
    await _each(run.plan.users, lambda user: run.rest.insist("GET", "/users/me", user))
    await _each(run.plan.talks, lambda talk: _create(run, talk))


async def _create(run: Run, talk: Talk) -> None:
    owner, *others = talk.members
    body = {"kind": "direct" if talk.is_direct else "group", "member_ids": others}
    if not talk.is_direct:
        body |= {"title": f"group {talk.number}", "client_conversation_id": talk.key}
    started = time.monotonic()
    status, answer = await run.rest.insist("POST", "/conversations", owner, body)
    assert status in {200, 201}, answer
    run.conversations[talk.number] = answer["id"]
    ended = time.monotonic()
    run.history.memberships += [Membership(answer["id"], member, started, ended) for member in talk.members]


def _start_devices(run: Run, hurry: float) -> list[asyncio.Task[None]]:
    shape = run.plan.shape
    watches = shape.changes_share > 0 or shape.removals_per_second > 0
    for user in run.plan.users:
        for number in range(shape.devices_per_user):
            name = f"{user}/{number + 1}"
            run.recorder.add_device(name, user)
            run.devices.append(
                Device(
                    name,
                    user,
                    rest=run.rest,
                    recorder=run.recorder,
                    rng=random.Random(f"{run.plan.seed} {name}"),
                    hurry=hurry,
                    watches_changes=watches,
                )
            )
    return [asyncio.create_task(device.run()) for device in run.devices]


async def _load_with_faults(load: Load, run: Run, faults: Faults | None, tail_seconds: float | None) -> None:
    async def until_over() -> None:
        if faults is not None:
            try:
                await faults(run)
            except Exception:
                load.stop()
                raise
        if tail_seconds is not None:
            await asyncio.sleep(tail_seconds)
            load.stop()

    nemesis = asyncio.ensure_future(until_over())
    try:
        await load.run()
        assert tail_seconds is None or nemesis.done(), "the plan ended before the faults did"
    finally:
        nemesis.cancel()
        (outcome,) = await asyncio.gather(nemesis, return_exceptions=True)
    if isinstance(outcome, Exception):
        raise outcome


async def _sentinels(load: Load, run: Run, settle_seconds: float) -> None:
    """Send a last message to every conversation and wait until every device has it."""
    rng = random.Random(run.plan.seed + 4)
    last = {talk.number: Send(0, talk.number, talk.members[0], new_key(rng), "the last") for talk in run.plan.talks}
    keys: dict[str, list[str]] = {user: [] for user in run.plan.users}
    for talk in run.plan.talks:
        for member in talk.members:
            keys[member].append(last[talk.number].key)
    for device in run.devices:
        device.expect(keys[device.user])
    await _each(last.values(), load.send)

    async def arrived(device: Device) -> None:
        await device.has_expected.wait()
        await device.until_quiet()

    waiting = [asyncio.ensure_future(arrived(device)) for device in run.devices]
    _, late = await asyncio.wait(waiting, timeout=settle_seconds)
    for waiter in late:
        waiter.cancel()
    await asyncio.gather(*late, return_exceptions=True)


async def _read_store(run: Run) -> None:
    """Read every conversation through its owner, who was there all the time."""

    async def read(talk: Talk) -> None:
        conversation_id = run.conversations[talk.number]
        run.history.store += [message async for message in run.rest.messages(talk.members[0], conversation_id)]

    await _each(run.plan.talks, read)


async def _each(items, work) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(item) -> None:
        async with gate:
            await work(item)

    await asyncio.gather(*(one(item) for item in items))


async def _bounded(waits, seconds: float, what: str) -> None:
    try:
        async with asyncio.timeout(seconds):
            await asyncio.gather(*waits)
    except TimeoutError as error:
        raise AssertionError(what) from error
