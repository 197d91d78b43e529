"""One run from an empty server to a history: people, load with faults, healing, last words, the final state."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.history.device import Device
from tests.history.ending import each_of, list_conversations, read_conversations, say_last_words
from tests.history.load import Load
from tests.history.plan import Plan, Talk, device_name
from tests.history.recorder import Recorder
from tests.history.records import History, Membership
from tests.history.rest import Rest

OPEN_SECONDS = 20.0


@dataclass(slots=True)
class Stage:
    """The server under test: equal processes by port, and how to sign in; `has_lists` of conversations."""

    ports: Sequence[int]
    token_for: Callable[[str], str]
    is_dense: bool = True
    has_lists: bool = True


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

    @property
    def watches_changes(self) -> bool:
        """Whether devices ask for what is not replayed; a run without any of it saves the calls."""
        shape = self.plan.shape
        return shape.changes_share > 0 or shape.removals_per_second > 0 or shape.reads_share > 0

    @property
    def present(self) -> list[Device]:
        """The devices that have not left for good."""
        return [device for device in self.devices if self.history.devices[device.name].is_present]

    @contextmanager
    def muted(self) -> Iterator[None]:
        """Tell that a process, or the way to it, says nothing meanwhile: it is no finding that it does not."""
        began_at = time.monotonic()
        try:
            yield
        finally:
            self.history.mutes.append((began_at, time.monotonic()))


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
    async with Rest(stage.ports, stage.token_for, random.Random(plan.seed + 2), recorder.called) as rest:
        run = Run(plan, recorder, rest, random.Random(plan.seed + 3))
        await _set_up(run)
        tasks = _start_devices(run, hurry)
        try:
            await _bounded((device.is_open.wait() for device in run.devices), OPEN_SECONDS, "devices do not open")
            load = Load(plan, rest, run.history, run.conversations)
            absences = asyncio.create_task(_keep_away(run))
            try:
                await _load_with_faults(load, run, faults, tail_seconds)
            finally:
                absences.cancel()
                (failure,) = await asyncio.gather(absences, return_exceptions=True)
            if isinstance(failure, Exception):
                raise failure
            for device in run.present:
                if device.is_away:
                    run.recorder.has_returned(device.name)
                    device.come_back()
            await load.settle()
            await say_last_words(load, run, settle_seconds)
            if stage.has_lists:
                await list_conversations(run, settle_seconds)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for device in run.present:
            run.history.states[device.name] = device.copies.messages()
            run.history.positions[device.name] = dict(device.copies.positions)
        await read_conversations(run)
    return run.history


async def _set_up(run: Run) -> None:
    await each_of(run.plan.users, lambda user: run.rest.insist("GET", "/users/me", user))
    await each_of(run.plan.talks, lambda talk: _create(run, talk))


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
    for user in run.plan.users:
        for number in range(run.plan.shape.devices_per_user):
            name = device_name(user, number)
            run.recorder.add_device(name, user)
            run.devices.append(
                Device(
                    name,
                    user,
                    rest=run.rest,
                    recorder=run.recorder,
                    rng=random.Random(f"{run.plan.seed} {name}"),
                    hurry=hurry,
                    watches_changes=run.watches_changes,
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


async def _keep_away(run: Run) -> None:
    """Let devices leave as the plan says."""
    devices = {device.name: device for device in run.devices}
    started = time.monotonic()
    for absence in run.plan.absences:
        await asyncio.sleep(started + absence.at - time.monotonic())
        devices[absence.device].leave()
        if absence.is_for_good:
            run.recorder.has_left(absence.device)


async def _bounded(waits, seconds: float, what: str) -> None:
    try:
        async with asyncio.timeout(seconds):
            await asyncio.gather(*waits)
    except TimeoutError as error:
        raise AssertionError(what) from error
