"""The documents that are made of the code: `python -m app.documents ROOT` writes them, a test compares.

`docs/openapi.json`, `docs/asyncapi.yaml` and `.env.example` are committed so that a change of the
interface is seen in its diff.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

from app import asyncapi
from app.main import Gapless
from app.settings import AppEnv, Settings

_LINE_CHARACTERS = 100
_PLAIN_KEY = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*")
_YAML_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}

_ENVIRONMENT_HEAD = """\
# Every setting of Gapless, with its default. Made from backend/app/settings.py by `make docs`.
#
# Copy it to .env, take the # from what you set, and load it before a command:
#   set -a; . ./.env; set +a; gapless serve
# A blank value is the same as none.
# `gapless config` shows what is in force and where it comes from.
"""


def documents() -> dict[str, str]:
    """Give the text of each document by its path from the project's root."""
    return {
        "docs/openapi.json": openapi_json(),
        "docs/asyncapi.yaml": "# Made from backend/app/schemas/events.py by `make docs`.\n"
        + to_yaml(asyncapi.document()),
        ".env.example": environment_example(),
    }


def openapi_json() -> str:
    """Write the OpenAPI document of a production server, whatever the environment holds."""
    # model_construct reads no environment and asks for no secret.
    app = Gapless(Settings.model_construct(app_env=AppEnv.PRODUCTION))
    return json.dumps(app.api.openapi(), indent=2, ensure_ascii=False) + "\n"


def environment_example() -> str:
    """Write every setting with its description and default."""
    parts = [_ENVIRONMENT_HEAD]
    for name, field in Settings.model_fields.items():
        description = textwrap.fill(
            field.description or "", _LINE_CHARACTERS, initial_indent="# ", subsequent_indent="# "
        )
        parts.append(f"{description}\n#{name.upper()}={_default(field.default)}\n")
    return "\n".join(parts)


def to_yaml(value: Any, *, indent: int = 0) -> str:
    """Write YAML: keys and lists as blocks, every scalar as JSON, which YAML 1.2 contains.

    A library for this alone would be one more thing to install in production.
    """
    pad = "  " * indent
    if isinstance(value, dict) and value:
        return "".join(f"{pad}{_key(key)}:{_nested(part, indent)}" for key, part in value.items())
    if isinstance(value, list) and value:
        return "".join(f"{pad}-{_nested(part, indent)}" for part in value)
    return f"{pad}{_scalar(value)}\n"


def _nested(value: Any, indent: int) -> str:
    if isinstance(value, dict | list) and value:
        return "\n" + to_yaml(value, indent=indent + 1)
    return f" {_scalar(value)}\n"


def _scalar(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _key(key: str) -> str:
    return key if _PLAIN_KEY.fullmatch(key) and key.lower() not in _YAML_WORDS else _scalar(key)


def _default(default: object) -> str:
    if default is None or default is PydanticUndefined:
        return ""
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


if __name__ == "__main__":
    for path, text in documents().items():
        Path(sys.argv[1], path).write_text(text, encoding="utf-8")
