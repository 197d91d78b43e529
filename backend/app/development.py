"""What `gapless dev` keeps in `.gapless/` of the current folder, and the other commands find there."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from app.settings import DEVELOPMENT_SECRET_PREFIX

FOLDER: Final = Path(".gapless")
_RUNNING: Final = "running.json"


@dataclass(frozen=True, slots=True)
class RunningServer:
    """Where the development server of this folder is, while it runs."""

    pid: int
    url: str
    database_url: str
    redis_url: str


def make_folder() -> Path:
    """Make the folder, for its owner only, and give its absolute path."""
    folder = FOLDER.absolute()
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)  # `make` may have made it, for its tools
    return folder


def make_secret(name: str) -> str:
    """Give the secret of that name, made at the first call. Production refuses it by its first word."""
    found = find_secret(name)
    if found is not None:
        return found
    text = f"{DEVELOPMENT_SECRET_PREFIX}{secrets.token_urlsafe(32)}"
    _write_private(FOLDER / name, text)
    return text


def find_secret(name: str) -> str | None:
    """Give the secret of that name, if `gapless dev` has made one in this folder."""
    try:
        return (FOLDER / name).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def announce(server: RunningServer) -> None:
    """Let the other commands of this folder find the server."""
    _write_private(FOLDER / _RUNNING, json.dumps(asdict(server)))


def withdraw() -> None:
    """Forget the server."""
    (FOLDER / _RUNNING).unlink(missing_ok=True)


def running_server() -> RunningServer | None:
    """Give the server that runs in this folder."""
    try:
        server = RunningServer(**json.loads((FOLDER / _RUNNING).read_text(encoding="utf-8")))
        os.kill(server.pid, 0)
    except (OSError, ValueError, TypeError):  # none, or killed before it could withdraw
        return None
    return server


def environment() -> dict[str, str]:
    """Give the settings of the server that runs in this folder, for those that are not set otherwise.

    Empty as soon as the environment names a database: then it is that one which is meant.
    """
    server = running_server()
    if server is None or os.environ.get("DATABASE_URL"):
        return {}
    found = {
        "app_env": "development",
        "database_url": server.database_url,
        "redis_url": server.redis_url,
        "auth_jwt_secret": find_secret("auth_jwt_secret"),
        "server_api_key": find_secret("server_api_key"),
    }
    if os.environ.get("AUTH_JWKS_URL"):
        del found["auth_jwt_secret"]
    return {name: value for name, value in found.items() if value and not os.environ.get(name.upper())}


def _write_private(path: Path, text: str) -> None:
    # Beside it and then in its place: a reader finds all of it or nothing.
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"{text}\n")
    fresh.replace(path)
