"""`gapless config`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import typer
from pydantic import SecretStr

from app import development
from app.settings import Settings


@dataclass(frozen=True, slots=True)
class _Line:
    name: str
    value: Any
    source: str


def run(*, as_json: bool) -> None:
    """Print name, value and source of every setting."""
    found = development.environment()
    settings = Settings.model_validate(found)
    lines = [
        _Line(name.upper(), _shown(getattr(settings, name)), _source(settings, name, found))
        for name in Settings.model_fields
    ]
    if as_json:
        typer.echo(json.dumps([asdict(line) for line in lines], indent=2))
        return
    for line in lines:
        typer.echo(f"{line.name:<22} {_text(line.value):<44} {line.source}".rstrip())


def _source(settings: Settings, name: str, found: dict[str, str]) -> str:
    if name in found:
        return "gapless dev, which runs in this folder"
    return "environment" if name in settings.model_fields_set else "default"


def _shown(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return f"(secret, {len(value.get_secret_value())} characters)"
    if isinstance(value, str) and "://" in value:
        return _without_password(value)
    return list(value) if isinstance(value, tuple) else value


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    sign_in, at, place = parts.netloc.rpartition("@")
    if not at or ":" not in sign_in:
        return url
    user = sign_in.partition(":")[0]
    return urlunsplit(parts._replace(netloc=f"{user}:***@{place}"))


def _text(value: Any) -> str:
    if value is None:
        return "(not set)"
    return ", ".join(value) if isinstance(value, list) else str(value)
