"""What scenarios about processes do and look at."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Iterable, Sequence

from tests.faults.kit.scene import Played
from tests.history.device import Device
from tests.history.run import Run
from tests.support.servers import Server

# The watchdog of a client, and its pause. Whoever is back later was lost for its user.
CLIENT_SECONDS = 30.0


async def ends(process: subprocess.Popen[bytes] | None, *, within_seconds: float = 20) -> int:
    """Wait for the end of a process and give its code."""
    assert process is not None
    return await asyncio.to_thread(process.wait, within_seconds)


async def gather_on(run: Run, port: int) -> None:
    """Make every device hold its stream at this port, and stay there."""
    run.rest.ports[:] = [port]
    since = len(run.history.events)
    for device in run.devices:
        device.reconnect()
    await until_connected(run, run.devices, since=since)


async def until_connected(run: Run, devices: Iterable[Device], *, since: int, seconds: float = CLIENT_SECONDS) -> None:
    """Wait until each of these has a `connected` among the events recorded from place `since` on."""
    missing = {device.name for device in devices}
    try:
        async with asyncio.timeout(seconds):
            while True:
                events = run.history.events[since:]
                missing -= {event.device for event in events if event.name == "connected"}
                since += len(events)
                if not missing:
                    return
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"{len(missing)} devices are not back after {seconds} s") from None


def port_of(device: Device) -> int:
    """The client's end of the connection that a device holds now."""
    assert device._connection is not None
    assert device._connection._transport is not None
    return device._connection._transport.get_extra_info("sockname")[1]


def most_within(times: Sequence[float], seconds: float) -> int:
    """How many of them, at most, lie so close together."""
    ordered, first, most = sorted(times), 0, 0
    for last, time in enumerate(ordered):
        while ordered[first] < time - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def longest_silence(played: Played) -> float:
    """The longest that an open stream brought nothing, in seconds."""
    last: dict[int, float] = {}
    longest = 0.0
    for event in played.history.events:
        longest = max(longest, event.at - last.get(event.stream, event.at))
        last[event.stream] = event.at
    return longest


async def metric(server: Server, name: str, **labels: str) -> float:
    """One number of a server in development, which shows its metrics."""
    assert server.session is not None
    async with server.session.get(f"{server.url}/metrics") as response:
        text = await response.text()
    series = name + ("{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}" if labels else "")
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    assert found is not None, f"there is no {series}"
    return float(found[1])
