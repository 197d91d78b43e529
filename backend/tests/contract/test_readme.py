"""The documents that people wrote say what the code does: the walk is walked, tables and links are compared."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.asyncapi import document
from app.auth import Authenticator
from app.cli import app as command_line
from app.observability import registry
from app.settings import Settings
from tests.support.commands import GAPLESS, dev_server, environment

ROOT = Path(__file__).parents[3]
README = ROOT / "README.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
WILD = "…"
SECRET = "a-secret-of-the-tests-that-is-long-enough"
BACKEND = ROOT / "backend"
BOUND = r"^(MAX_[A-Z_]+|ATTEMPTS|BACKLOG|[A-Z][A-Z_]*_(?:BYTES|CHARACTERS|MS|ROWS|SECONDS))(?:: Final)? = "
# Of a number's kind, of a secret that is too short, and what is written into the log.
NO_BOUNDS = {
    ("MAX_BIGINT", "app/schemas/text"),
    ("MAX_SEQ", "app/services/messaging/cursor"),
    ("MIN_SECRET_BYTES", "app/settings"),
    ("LOOP_BLOCKED_SECONDS", "app/observability"),
    ("LOOP_TICK_SECONDS", "app/observability"),
    ("SLOW_SECONDS", "app/api/edge"),
}
HEARTBEAT = re.compile(r"event: heartbeat\ndata: .*\n\n")


# --- The walk ------------------------------------------------------------------------------------


@pytest.mark.e2e
@pytest.mark.timeout(120)
@pytest.mark.skipif(sys.platform != "linux", reason="the embedded servers need Linux")
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_the_walk_of_the_readme_prints_what_it_says(tmp_path: Path):
    """Protocol 1.1, 1.2, 4.1, 5.1: a connection is lost, and nothing with it."""
    steps = re.findall(r"```sh walk\n(.*?)```\n(?:\n```text walk\n(.*?)```)?", README.read_text(), re.DOTALL)
    assert len(steps) >= 6
    async with dev_server(tmp_path) as (_, url):
        (tmp_path / ".venv/bin").mkdir(parents=True)
        (tmp_path / ".venv/bin/gapless").symlink_to(GAPLESS)
        before = set(tmp_path.iterdir())
        # A person has time to read; this machine may be busy.
        lines = ["set -eu", "sleep() { command sleep $(($1 * 3)); }"]
        for commands, _ in steps:
            lines += [commands, "printf '\\0'"]
        done = await asyncio.to_thread(
            subprocess.run,
            ["bash", "-c", "\n".join(lines)],
            cwd=tmp_path,
            env=environment({"PORT": url.rpartition(":")[2]}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert set(tmp_path.iterdir()) == before, "it leaves nothing behind"
    assert done.returncode == 0, done.stderr
    for (commands, expected), printed in zip(steps, done.stdout.split("\0"), strict=False):
        actual = HEARTBEAT.sub("", printed).rstrip()
        pattern = "[^\n]*".join(re.escape(part) for part in expected.rstrip().split(WILD))
        assert re.fullmatch(pattern, actual), f"{commands}\nprinted:\n{actual}\nand not:\n{expected}"


# --- The ten lines that sign a token -------------------------------------------------------------


async def test_the_python_that_signs_a_token_is_right(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AUTH_JWT_SECRET", SECRET)
    names: dict = {}
    exec(snippet("python mint"), names)  # noqa: S102 - it is ours
    await check_token(names["gapless_token"]("ada", "Ada Lovelace"))


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
async def test_the_javascript_that_signs_a_token_is_right(tmp_path: Path):
    module = tmp_path / "token.mjs"
    module.write_text(snippet("js mint") + 'process.stdout.write(gaplessToken("ada", "Ada Lovelace"));')
    done = await asyncio.to_thread(
        subprocess.run,
        ["node", str(module)],
        env=environment({"AUTH_JWT_SECRET": SECRET}),
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    await check_token(done.stdout)


def snippet(kind: str) -> str:
    found = re.findall(rf"```{kind}\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(found) == 1
    return str(found[0])


async def check_token(token: str) -> None:
    settings = Settings.model_construct(auth_jwt_secret=SecretStr(SECRET))
    principal = await Authenticator(settings, "key").bearer(token)
    assert (principal.user_id, principal.name) == ("ada", "Ada Lovelace")


# --- Tables --------------------------------------------------------------------------------------


def test_the_table_of_settings_is_that_of_the_code():
    table = README.read_text().partition("settings.py -->")[2].partition("<!-- /settings -->")[0].strip()
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.default
        words = ", ".join(default) if isinstance(default, tuple) else "" if default is None else str(default)
        rows.append(f"| `{name.upper()}` | {f'`{words}`' if words else ''} | {field.description} |")
    expected = "\n".join(rows)
    assert table == expected, f"Put this into README.md:\n\n{expected}\n"


def test_the_table_of_commands_has_every_command():
    named = re.findall(r"^\| `gapless (\w+)", README.read_text(), re.MULTILINE)
    commands = [c.name or getattr(c.callback, "__name__", "") for c in command_line.registered_commands]
    assert sorted(named) == sorted(commands)


def test_the_table_of_events_has_every_event():
    table = section(README, "## Events")
    assert set(first_column(table)) == set(document()["channels"]["userStream"]["messages"])


def test_the_table_of_routes_has_every_route():
    rows = re.findall(r"^\| `([A-Z, ]+) (/[^`]*)` \|", section(README, "## Routes"), re.MULTILINE)
    named = {(method, f"/api/v1{path}") for methods, path in rows for method in methods.split(", ")}
    paths = json.loads((ROOT / "docs/openapi.json").read_text())["paths"]
    known = {(m.upper(), re.sub(r"{(?!emoji)\w+}", "{id}", path)) for path, methods in paths.items() for m in methods}
    assert named == {(method, path) for method, path in known if path.startswith("/api/v1")}


def test_the_table_of_metrics_has_every_metric():
    named = set(first_column(section(ROOT / "docs/operations.md", "## Metrics")))
    exposed = {m.name + ("_total" if m.type == "counter" else "") for m in registry.collect()}
    assert named == exposed


def test_the_table_of_bounds_has_the_values_of_the_code():
    for name, path, text in rows_of_bounds():
        constant = getattr(importlib.import_module(path.replace("/", ".")), name)
        value = constant.total_seconds() if hasattr(constant, "total_seconds") else constant
        values = value if isinstance(value, tuple) else (value,)
        assert amounts(text, in_ms=name.endswith("_MS")) == pytest.approx(values), name


def test_the_table_of_bounds_has_every_bound_of_the_server():
    named = {(name, path) for name, path, _ in rows_of_bounds()}
    for file in sorted(BACKEND.glob("app/**/*.py")):
        path = str(file.relative_to(BACKEND).with_suffix(""))
        if not re.match(r"app/(bench|commands|embedded)", path):
            bounds = {(name, path) for name in re.findall(BOUND, file.read_text(), re.MULTILINE)} - NO_BOUNDS
            assert bounds <= named


def rows_of_bounds() -> list[tuple[str, str, str]]:
    """A row is: `CONSTANT` | file | value | meaning."""
    rows = re.findall(
        r"^\| `([A-Z_]+)` \| \[[^]]+\]\(\.\./backend/(app/[a-z_/]+)\.py\) \| ([^|]+) \|",
        section(ROOT / "docs/architecture.md", "## Bounds"),
        re.MULTILINE,
    )
    assert len(rows) > 30
    return rows


def amounts(text: str, *, in_ms: bool) -> tuple[float, ...]:
    """Read "64 KB", "50 ms", "1 to 4 s", "30 min" or "10,000"."""
    found = re.fullmatch(r"([\d.,]+)(?: to ([\d.,]+))?(?: ([A-Za-z]+))?", text.strip())
    assert found is not None, text
    scale: float = {None: 1, "KB": 1024, "MB": 1024**2, "s": 1000, "ms": 1, "min": 60_000, "h": 3_600_000}[found[3]]
    if found[3] in {"s", "ms", "min", "h"} and not in_ms:
        scale /= 1000
    return tuple(float(number.replace(",", "")) * scale for number in found.groups()[:2] if number)


def section(file: Path, heading: str) -> str:
    """The text from a heading to the next of its level."""
    level = heading.partition(" ")[0]
    text = file.read_text().partition(f"\n{heading}\n")[2]
    assert text, f"{file.name} has no {heading}"
    return re.split(rf"\n{level} ", text)[0]


def first_column(text: str) -> list[str]:
    return re.findall(r"^\| `([a-z_]+)`", text, re.MULTILINE)


# --- Links ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_lead_somewhere(file: Path):
    text = re.sub(r"```.*?```", "", file.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (file.parent / path).resolve() if path else file
        assert there.exists(), f"{file.name}: {target}"
        if anchor:
            assert anchor in anchors(there), f"{file.name}: {target}"


def anchors(file: Path) -> set[str]:
    """What GitHub makes of headings."""
    headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_openapi_document_holds_every_route_that_the_documents_name():
    paths = json.loads((ROOT / "docs/openapi.json").read_text())["paths"]
    known = [re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path)) for path in paths]
    for file in DOCUMENTS:
        for named in set(re.findall(r"/api/v1/[\w/{}-]*\w[\w}]*", file.read_text())):
            assert any(route.fullmatch(named) for route in known), f"{file.name}: {named}"
