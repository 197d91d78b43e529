"""`gapless dev`: one command to the first message, with servers of its own that end with it."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from app import development, serving
from app.api import demo_page
from app.auth import mint_token
from app.commands import demo
from app.db.migrate import migrate
from app.embedded import EmbeddedServers
from app.exits import CommandError, Exit
from app.origins import is_loopback_address, is_loopback_host
from app.settings import AppEnv, Settings

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class _Ready:
    """What is told once the server accepts."""

    url: str
    settings: Settings
    folder: Path
    embedded: tuple[str, ...]


def run(*, host: str | None, port: int | None, with_demo: bool | None) -> Exit:
    """Start everything, serve until a signal, stop everything."""
    for number in _STOP_SIGNALS:
        signal.signal(number, _leave)  # until uvicorn takes them: the servers are stopped on the way out
    given = _settings({}, host=host, port=port)
    if not is_loopback_host(given.host) or not _resolves_here(given.host):
        raise CommandError(
            f"gapless dev hands out tokens to whoever asks, so it listens on this machine only, not on {given.host}. "
            "Use gapless serve for others.",
            Exit.CONFIG,
        )
    folder = development.make_folder()
    with ExitStack() as stack:
        stack.callback(_ignore_signals)  # last of all to be set, first to be run: the servers stop undisturbed
        listener = stack.enter_context(serving.open_listener(given))
        servers = EmbeddedServers(folder, postgres=given.database_url is None, valkey=given.redis_url is None)
        urls = stack.enter_context(servers)
        stack.callback(_ignore_signals)
        settings = _settings(
            {
                "database_url": given.database_url or urls.database_url,
                "redis_url": given.redis_url or urls.redis_url,
                "server_api_key": given.server_api_key or development.make_secret("server_api_key"),
                **({} if given.auth_jwks_url or given.auth_jwt_secret else _own_secret()),
            },
            host=host,
            port=port,
        )
        migrate(str(settings.database_url))

        url = f"http://{_in_url(settings.host)}:{listener.getsockname()[1]}"
        running = development.RunningServer(
            os.getpid(), url, database_url=str(settings.database_url), redis_url=str(settings.redis_url)
        )
        development.announce(running)
        stack.callback(development.withdraw)
        embedded = tuple(
            name for name, server in (("PostgreSQL", servers.postgres), ("Valkey", servers.valkey)) if server
        )
        ready = _Ready(url, settings, folder, embedded)
        fills_in = with_demo if with_demo is not None else "PostgreSQL" in embedded

        async def tell() -> None:
            trouble = await demo.fill_in(url, settings) if fills_in else None
            with suppress(OSError):  # nobody reads standard output: the server goes on
                _print_banner(ready, trouble=trouble)

        return serving.serve(settings, listener, on_ready=tell)


def _settings(found: dict[str, object], *, host: str | None, port: int | None) -> Settings:
    """Read the environment; options and what was found here win over it."""
    options = {"host": host, "port": port}
    chosen = {name: value for name, value in options.items() if value is not None}
    return Settings.model_validate({"app_env": AppEnv.DEVELOPMENT, **chosen, **found})


def _own_secret() -> dict[str, object]:
    return {"auth_jwt_secret": development.make_secret("auth_jwt_secret")}


def _resolves_here(host: str) -> bool:
    return host == "localhost" or is_loopback_address(host)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _leave(number: int, frame: object) -> NoReturn:
    del number, frame
    sys.exit(Exit.OK)


def _ignore_signals() -> None:
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


# --- What is printed -----------------------------------------------------------------------------


def _print_banner(ready: _Ready, *, trouble: str | None) -> None:
    console = Console(highlight=False, soft_wrap=True, markup=False)  # plain where it is no terminal
    tokens = _tokens(ready.settings)
    console.print(
        "\n  DEVELOPMENT SERVER: anybody on this machine can be anybody. Not for production.  ",
        style="bold reverse red",
    )
    console.print()
    for name, value in _facts(ready):
        console.print(f"  {name:<10}{value}")
    if tokens:
        console.print("\n  Tokens, good for 12 hours (gapless token USER makes more):", style="bold")
        for user_id, token in tokens.items():
            console.print(f"  {user_id:<10}{token}")
    if trouble is not None:
        console.print(f"\n  The demo conversations are not complete: {trouble}", style="yellow")
    if {"ada", "bob"} <= tokens.keys():
        console.print("\n  Watch Bob's stream in one terminal, and write to him from another:", style="bold")
        console.print(_curl_lines(ready.url, tokens))
    console.print("\n  Stop with Ctrl-C. The data stays.\n", style="bold")
    sys.stdout.flush()


def _facts(ready: _Ready) -> list[tuple[str, str]]:
    facts = [
        ("Gapless", ready.url),
        ("Demo chat", f"{ready.url}/" if demo_page.is_built() else demo_page.NOT_BUILT),
        ("API docs", f"{ready.url}/docs"),
        ("Data", f"{ready.folder} (remove it to start anew)"),
    ]
    if ready.embedded:
        facts.append(("Runs", f"{' and '.join(ready.embedded)}, on 127.0.0.1, gone with this process"))
    if len(ready.embedded) < len(("PostgreSQL", "Valkey")):
        given = [name for name in ("PostgreSQL", "Valkey") if name not in ready.embedded]
        names = {"PostgreSQL": "DATABASE_URL", "Valkey": "REDIS_URL"}
        facts.append(("Uses", " and ".join(f"the server of {names[name]}" for name in given)))
    if ready.settings.auth_jwt_secret is None:
        facts.append(("Tokens", "come from AUTH_JWKS_URL"))
    return facts


def _tokens(settings: Settings) -> dict[str, str]:
    secret = settings.auth_jwt_secret
    if secret is None:
        return {}
    return {
        user_id: mint_token(
            secret.get_secret_value(),
            user_id,
            name=name,
            issuer=settings.auth_issuer,
            audience=settings.auth_audience,
        )
        for user_id, name in demo.USERS.items()
    }


def _curl_lines(url: str, tokens: dict[str, str]) -> str:
    return (
        f"  curl -N '{url}/api/v1/messages/stream?user_id=bob' \\\n"
        f"    -H 'Authorization: Bearer {tokens['bob']}'\n\n"
        f"  curl {url}/api/v1/messages/send -H 'Content-Type: application/json' \\\n"
        f"    -H 'Authorization: Bearer {tokens['ada']}' \\\n"
        '    -d \'{"recipient_id": "bob", "content": "Hello Bob"}\''
    )
