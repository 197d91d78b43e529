"""The command `gapless`: a table of contents. Each command is a file of `commands/`, imported when it is called."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

EXIT_CODES = (
    "Exit codes: 0 done; 1 failed, or a check failed; 2 wrong usage; 69 server or database does not answer; "
    "77 credential refused; 78 a setting is missing or not usable."
)

app = typer.Typer(
    name="gapless",
    help="Gapless, a self-hosted real-time messaging server: every message, once, in order.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Url = Annotated[
    str | None, typer.Option("--url", help="The server. Left out: PORT, or the one that runs in this folder.")
]
Token = Annotated[
    str | None,
    typer.Option("--token", help="The user's token. Left out: one is signed with AUTH_JWT_SECRET or the dev secret."),
]


def main() -> None:
    """Run a command; a failure that was foreseen ends in a sentence on stderr and its exit code."""
    try:
        app()
    except BrokenPipeError:  # `gapless tail ada | head -1`
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        from app.failures import explain

        known = explain(error)
        if known is None:
            raise
        sentences, code = known
        for sentence in sentences:
            typer.echo(f"gapless: {sentence}", err=True)
        sys.exit(code)


@app.command()
def dev(
    host: Annotated[str | None, typer.Option(help="A loopback address. [default: HOST, or 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="[default: PORT, or 8000]")] = None,
    demo: Annotated[
        bool | None, typer.Option("--demo/--no-demo", help="Demo users. [default: with the embedded PostgreSQL]")
    ] = None,
) -> None:
    """Start a development server with its own PostgreSQL and Valkey; data in .gapless/.

    DATABASE_URL or REDIS_URL, each where it is set, is used in place of the embedded server.
    """
    from app.commands import dev as command

    raise typer.Exit(command.run(host=host, port=port, with_demo=demo))


@app.command()
def serve(
    workers: Annotated[int | None, typer.Option(min=1, max=64, help="Processes. [default: WORKERS, or 1]")] = None,
    host: Annotated[str | None, typer.Option(help="[default: HOST, or 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="[default: PORT, or 8000]")] = None,
) -> None:
    """Serve in production; settings come from the environment (see `gapless config`).

    SIGTERM and SIGINT drain: streams end within 5 s, requests within 12 s, then it exits with 0.
    """
    from app.commands import serve as command

    raise typer.Exit(command.run(workers=workers, host=host, port=port))


@app.command()
def migrate() -> None:
    """Bring the database of DATABASE_URL to this version's schema. Safe to run again, and at the same time."""
    from app.commands import migrate as command

    command.run()


@app.command()
def restored(as_json: Json = False) -> None:
    """Tell all clients that the database was restored from a backup: run it once after any restore."""
    from app.commands import restored as command

    command.run(as_json=as_json)


@app.command()
def token(
    user: Annotated[str, typer.Argument(help="The user's id.")],
    name: Annotated[str | None, typer.Option(help="The user's name.")] = None,
    minutes: Annotated[int, typer.Option(min=1, max=60 * 24 * 366, help="How long it is good.")] = 12 * 60,
    as_json: Json = False,
) -> None:
    """Print a token for a user, signed with AUTH_JWT_SECRET or the development secret of .gapless/."""
    from app.commands import token as command

    command.run(user, name=name, minutes=minutes, as_json=as_json)


@app.command()
def send(
    sender: Annotated[str, typer.Argument(metavar="USER", help="Who sends.")],
    text: Annotated[str, typer.Argument(help="What to say.")],
    *,
    to: Annotated[str | None, typer.Option("--to", metavar="USER", help="To a user.")] = None,
    conversation: Annotated[UUID | None, typer.Option(help="Into a conversation.")] = None,
    key: Annotated[UUID | None, typer.Option(help="client_message_id: repeat it, and it is sent once.")] = None,
    url: Url = None,
    given_token: Token = None,
    as_json: Json = False,
) -> None:
    """Send a message, over HTTP. Tries for 10 s while the server does not answer, by one and the same key."""
    from app.commands import send as command

    if (to is None) == (conversation is None):
        raise typer.BadParameter("give either --to USER or --conversation ID")
    command.run(
        sender, text, recipient=to, conversation=conversation, key=key, url=url, token=given_token, as_json=as_json
    )


@app.command()
def tail(
    user: Annotated[str, typer.Argument(help="Whose stream.")],
    *,
    cursor: Annotated[str | None, typer.Option(help="Begin after this cursor, with what was missed.")] = None,
    heartbeats: Annotated[bool, typer.Option("--heartbeats", help="Print these, too.")] = False,
    url: Url = None,
    given_token: Token = None,
    as_json: Json = False,
) -> None:
    """Print a user's live events until Ctrl-C; reconnects by itself and goes on where it was.

    With --json one object a line: {"event", "id", "data"}; `id`, on messages, is the cursor.
    """
    from app.commands import tail as command

    command.run(user, url=url, token=given_token, cursor=cursor, as_json=as_json, heartbeats=heartbeats)


@app.command()
def doctor(
    url: Annotated[
        str | None, typer.Option(help="The public URL: also sends a message through it and times its arrival.")
    ] = None,
    given_token: Token = None,
    as_json: Json = False,
) -> None:
    """Check settings, PostgreSQL, Redis, clock and limits; each with a sentence on what to do. 1 if one fails."""
    from app.commands import doctor as command

    raise typer.Exit(command.run(url=url, token=given_token, as_json=as_json))


@app.command()
def bench(
    profile: Annotated[
        list[str] | None,
        typer.Option(help="fanout, broadcast, send, latency, storm, catchup, idle, group or all; may be repeated."),
    ] = None,
    *,
    url: Annotated[
        str | None, typer.Option(help="A running server: it is filled with users bench-… [default: one of its own]")
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Write report.html, .md and .json there.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few streams and a second each: whether it works.")] = False,
    repeats: Annotated[int | None, typer.Option(min=1, max=100, help="[default: 3]")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.2, max=60, help="Of one repeat. [default: 5]")] = None,
    as_json: Json = False,
) -> None:
    """Put load on a server over real sockets, count and check what it delivers, and report. 1 if that is wrong.

    Without --url it starts PostgreSQL, Valkey and one server of its own, pinned to a core, in a temporary folder.
    """
    from app.commands import bench as command

    raise typer.Exit(
        command.run(
            profiles=profile or ["all"],
            url=url,
            as_json=as_json,
            report_folder=report,
            quick=quick,
            repeats=repeats,
            seconds=seconds,
        )
    )


@app.command()
def config(as_json: Json = False) -> None:
    """Print every setting in force and where it comes from; secrets are masked."""
    from app.commands import config as command

    command.run(as_json=as_json)


@app.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    from app.commands import openapi as command

    command.run()
