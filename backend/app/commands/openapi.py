"""`gapless openapi`."""

from __future__ import annotations

import typer

from app.documents import openapi_json


def run() -> None:
    """Print what docs/openapi.json holds."""
    typer.echo(openapi_json(), nl=False)
