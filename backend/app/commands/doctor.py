"""`gapless doctor`: can this installation keep the promise, and if not, what to do."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict

import typer
from pydantic import ValidationError
from rich.console import Console

from app import development
from app.commands import checks
from app.commands.checks import Check
from app.commands.connection import server_url
from app.exits import Exit
from app.failures import setting_sentences
from app.observability import configure_logging
from app.settings import Settings

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def run(*, url: str | None, token: str | None, as_json: bool) -> Exit:
    """Print every check; fail if one does."""
    configure_logging("error", as_json=False)  # what the checks use logs its ups and downs
    done = asyncio.run(_check_all(None if url is None else server_url(url), token))
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in done], indent=2))
    else:
        _print(done)
    return Exit.FAILED if any(check.outcome == "fail" for check in done) else Exit.OK


async def _check_all(url: str | None, token: str | None) -> list[Check]:
    done: list[Check] = []
    try:
        settings = Settings.model_validate(development.environment())
    except ValidationError as error:
        done += [Check("settings", "fail", sentence) for sentence in setting_sentences(error)]
    else:
        done.append(Check("settings", "ok", f"They are usable, for {settings.app_env.value}."))
        done += await checks.check_postgresql(settings)
        done += await checks.check_redis(settings)
    done.append(checks.check_files())
    if url is not None:
        from app.commands.stream_check import check_stream  # noqa: PLC0415 - only with --url

        done += await check_stream(url, token)
    return done


def _print(done: list[Check]) -> None:
    console = Console(highlight=False, soft_wrap=True, markup=False)
    for check in done:
        console.print(f"{check.outcome:<5}", style=_STYLES[check.outcome], end="")
        console.print(f"{check.name:<20}{check.sentence}")
