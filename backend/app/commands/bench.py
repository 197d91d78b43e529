"""`gapless bench`: put load on a server, check what it delivers, and report."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import asyncpg
import typer
import uvloop
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.bench import machine as machines
from app.bench import report
from app.bench.plan import Plan, Profile, Run
from app.bench.profiles import PROFILES
from app.bench.progress import Progress
from app.bench.results import ProfileResult
from app.bench.stage import GivenStage, OwnStage, own_stage
from app.bench.target import SkipError
from app.exits import CommandError, Exit
from app.services.messaging import redis_link

if TYPE_CHECKING:
    from app.bench.machine import Machine

QUICK: Final = Plan(quick=True, repeats=1, seconds=1.0)
ANSWER_SECONDS: Final = 2.0

# What a server under load, or one that has died under it, can do to a profile. It fails that profile alone.
_TROUBLE: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


def run(
    *,
    profiles: list[str],
    url: str | None,
    as_json: bool,
    report_folder: Path | None,
    quick: bool,
    repeats: int | None,
    seconds: float | None,
) -> Exit:
    """Run the profiles one after the other. 1 when something that was counted is wrong."""
    if sys.platform != "linux":
        raise CommandError("gapless bench reads /proc and pins processes: it needs Linux.", Exit.USAGE)
    chosen = _choose(profiles)
    plan = QUICK if quick else Plan()
    plan = Plan(quick, repeats or plan.repeats, seconds or plan.seconds)
    signal.signal(signal.SIGTERM, _leave)  # as Ctrl-C does: everything that was started ends with us
    machine = machines.describe()
    machine.is_quick = quick
    with ExitStack() as stack:
        progress = stack.enter_context(Progress())
        stage: OwnStage | GivenStage
        if url is not None:
            stage = GivenStage(url)
        else:
            progress.step("starting PostgreSQL and Valkey")
            stage = stack.enter_context(own_stage(is_shared=quick))
            machine.pinned = stage.cores.describe()
        if machine.warning:
            progress.say(machine.warning)
        stack.callback(signal.signal, signal.SIGTERM, signal.SIG_IGN)  # the rest is cleaning up
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                results = runner.run(_run_all(chosen, Run(stage, plan, progress), machine))
        except asyncio.CancelledError:
            sys.exit(128 + signal.SIGTERM)
    if report_folder is not None:
        written = report.write(report_folder, machine, results)
        typer.echo(f"Report: {', '.join(map(str, written))}", err=True)
    if as_json:
        typer.echo(json.dumps(report.document(machine, results)))
    else:
        _print(machine, results)
    return Exit.OK if all(result.is_right for result in results) else Exit.FAILED


def _choose(names: list[str]) -> list[Profile]:
    unknown = [name for name in names if name not in PROFILES and name != "all"]
    if unknown:
        raise CommandError(f"There is no profile {unknown[0]}; there are {', '.join(PROFILES)} and all.", Exit.USAGE)
    return [profile for name, profile in PROFILES.items() if name in names or "all" in names]


async def _run_all(profiles: list[Profile], run: Run, machine: Machine) -> list[ProfileResult]:
    task = asyncio.current_task()
    if task is not None:  # as the runner does with Ctrl-C
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    machine.servers = await _versions(run)
    async with run.stage.open():
        return [await _run_one(profile, run) for profile in profiles]


async def _run_one(profile: Profile, run: Run) -> ProfileResult:
    result = ProfileResult(profile.name, profile.title, profile.about)
    run.progress.profile(profile.name)
    start = time.perf_counter()
    try:
        await profile.measure(run, result)
    except SkipError as reason:
        result.skipped = str(reason)
    except _TROUBLE as error:
        result.errors.append(f"{type(error).__name__}: {error}")
    result.seconds = time.perf_counter() - start
    result.judge_load(run.stage.load_cores)
    state = "skipped" if result.skipped else "right" if result.is_right else "WRONG"
    run.progress.say(f"{profile.name}: {state}, {result.checked:,} events, {result.seconds:.0f} s")
    return result


async def _versions(run: Run) -> dict[str, str]:
    """Ask PostgreSQL and Redis who they are, where they are known."""
    found: dict[str, str] = {}
    database_url, redis_url = run.stage.urls()
    if database_url is not None:
        connection = await asyncpg.connect(database_url, timeout=ANSWER_SECONDS)
        settings = [f"{name}={await connection.fetchval(f'SHOW {name}')}" for name in ("fsync", "synchronous_commit")]
        version = str(await connection.fetchval("SHOW server_version")).split()[0]
        found["PostgreSQL"] = f"{version} ({', '.join(settings)})"
        await connection.close()
    if redis_url is not None:
        found |= await _redis_version(redis_url)
    return found


async def _redis_version(url: str) -> dict[str, str]:
    answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    link = await redis_link.open_link(url, on_reply=answer.set_result, on_lost=lambda: None, name="gapless-bench")
    try:
        link.write(redis_link.encode(b"INFO", b"server"))
        async with asyncio.timeout(ANSWER_SECONDS):
            text = await answer
    finally:
        link.abort()
    lines = text.decode().splitlines() if isinstance(text, bytes) else []
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    name = "Valkey" if "valkey_version" in values else "Redis"
    return {name: values.get("valkey_version") or values.get("redis_version", "unknown")}


def _print(machine: Machine, results: list[ProfileResult]) -> None:
    console = Console(highlight=False)
    table = Table(title=f"Gapless bench, {machine.commit}", title_justify="left")
    for name in ("measured", "target"):
        table.add_column(name)
    table.add_column("median", justify="right")
    table.add_column("min to max")
    table.add_column("")
    styles = {"met": "green", "right": "green", "missed": "yellow", "WRONG": "bold red"}
    last = ""
    for profile, *cells, verdict in report.rows_of(results):
        if profile != last:
            table.add_section()
            table.add_row(f"[bold]{profile}[/]")
            last = profile
        table.add_row(*cells, Text(verdict, style=styles.get(verdict, "")))
    console.print(table)
    for warning in report.warnings_of(machine, results):
        console.print(warning, style="yellow")


def _leave(number: int, frame: object) -> NoReturn:
    del frame
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the rest is cleaning up
    sys.exit(128 + number)
