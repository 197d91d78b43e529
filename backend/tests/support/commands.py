"""The command `gapless` as a person runs it: in a folder, with an environment of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

GAPLESS = str(Path(sys.executable).with_name("gapless"))
Found = TypeVar("Found")

START_SECONDS = 40  # the first start makes a database cluster; this machine may be busy


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


async def run(folder: Path, *arguments: str, **settings: object) -> Done:
    """Run a command to its end."""
    done = await asyncio.to_thread(
        subprocess.run,
        [GAPLESS, *arguments],
        cwd=folder,
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=45,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@dataclass(slots=True)
class Running:
    """A command that goes on until it is told to stop."""

    process: asyncio.subprocess.Process
    folder: Path
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    async def line(self, text: str = "", *, seconds: float = START_SECONDS) -> str:
        """Give the next line of standard output that holds `text`."""
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(seconds):
                while line := (await self.process.stdout.readline()).decode():
                    if text in line:
                        return line.strip()
        except TimeoutError:
            pass
        raise AssertionError(f"no line with {text!r}:\n{self.log.read_text(errors='replace')[-4000:]}")

    async def stop(self, number: int = signal.SIGTERM, *, seconds: float = 20) -> int:
        """Send a signal and give the exit code."""
        self.process.send_signal(number)
        return await self.ended(seconds=seconds)

    async def ended(self, *, seconds: float = 20) -> int:
        """Read what is left, so that the pipe cannot block it, and give the exit code."""
        async with asyncio.timeout(seconds):
            await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode


@asynccontextmanager
async def running(
    folder: Path, *arguments: str, prefix: Sequence[str] = (), **settings: object
) -> AsyncIterator[Running]:
    """Run a command for the length of the block; `prefix` is another that replaces itself by it."""
    folder.mkdir(exist_ok=True)
    log = folder / f"{arguments[0]}.err"
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *prefix, GAPLESS, *arguments, cwd=folder, env=environment(settings), stdout=subprocess.PIPE, stderr=errors
        )
    try:
        yield Running(process, folder, log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def dev_server(
    folder: Path, *arguments: str, prefix: Sequence[str] = (), **settings: object
) -> AsyncIterator[tuple[Running, str]]:
    """Run `gapless dev` until it says that it is ready; gives it and its URL."""
    async with running(folder, "dev", *arguments, prefix=prefix, **{"PORT": 0, **settings}) as server:
        url = (await server.line("Gapless ")).split()[-1]
        await server.line("Stop with Ctrl-C")
        yield server, url


def environment(settings: dict[str, object]) -> dict[str, str]:
    """Keep what a process needs to run at all; none of the caller's settings."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "LD_LIBRARY_PATH"}}
    return {**kept, **{name: str(value) for name, value in settings.items()}}


def servers_below(folder: Path) -> list[int]:
    """The processes of PostgreSQL and Valkey that work in `folder`."""
    return [pid for pid in processes_below(folder) if command_of(pid) in {"postgres", "valkey-server"}]


def processes_below(folder: Path) -> list[int]:
    """Every process that works in `folder` or below."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink().is_relative_to(folder.resolve()):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def children_of(pid: int) -> list[int]:
    """The children of a process that have not ended."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


async def eventually(condition: Callable[[], Found], *, seconds: float = 20) -> Found:
    """Wait until `condition()` gives something true, and give it."""
    async with asyncio.timeout(seconds):
        while not (outcome := condition()):
            await asyncio.sleep(0.02)
    return outcome
