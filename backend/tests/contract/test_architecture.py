"""The rules of the tree that no linter knows: who may import whom, who publishes, who owns a task."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

BACKEND = Path(__file__).parents[2]
APP = BACKEND / "app"
MAX_LINES = 450
FILES = sorted(APP.rglob("*.py"))
NAMES = {path: ".".join(path.relative_to(APP).with_suffix("").parts).removesuffix(".__init__") for path in FILES}

# From the bottom up: a module imports its own layer and those below it. The longest match counts.
LAYERS = [
    {"deadline", "exit_deadline", "errors", "events", "inbox", "lru", "origins", "observability", "settings", "exits",
     "jwks", "text_rules", "log_writer", "services.messaging.channels", "services.messaging.cursor", ""},
    {"auth", "schemas"},
    {"db", "services.messaging"},
    {"services"},
    {"api"},
    {"main", "server", "stream_wire", "serving", "supervisor", "startup", "documents", "asyncapi", "development",
     "failures", "cli", "commands", "bench", "embedded", "embedded_postgres", "embedded_process", "embedded_valkey"},
]  # fmt: skip
# What a layer must not know although it lies above it, or beside it.
FORBIDDEN = {
    "services.messaging": {"app.db", "app.services", "app.api", "fastapi", "starlette", "uvicorn", "pydantic"},
    "services": {"app.api", "app.schemas", "fastapi", "starlette", "uvicorn"},
    "db": {"app.services", "app.api", "fastapi", "starlette", "redis"},
    "api.routes": {"app.db", "app.main", "app.server", "asyncpg", "redis", "uvicorn"},
    "events": {"fastapi", "redis", "asyncio", "time"},
    "errors": {"fastapi", "starlette", "http"},
    "services.messaging.cursor": {"asyncio", "time", "redis"},
    "services.messaging.continuity": {"asyncio", "time", "redis"},
}
ALLOWED = {
    ("services.messaging", "app.services.messaging"),
    ("api.routes.probes", "app.db.migrate"),  # readiness compares the revision that is there with the one needed
}


def imports_of(path: Path) -> Iterator[str]:
    """Give every imported module, those for type checking as well: they are knowledge, too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            for alias in node.names:
                full = f"{module}.{alias.name}"
                yield full if full.removeprefix("app.") in NAMES.values() else module


def is_within(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(f"{prefix}.")


def layer_of(name: str) -> int:
    matches = [
        (len(prefix), layer) for layer, names in enumerate(LAYERS) for prefix in names if is_within(name, prefix)
    ]
    assert matches, f"app/{name.replace('.', '/')}.py has no layer: give it one here"
    return max(matches)[1]


def upward_imports(name: str, modules: list[str]) -> list[str]:
    own = [module for module in modules if is_within(module, "app")]
    return [module for module in own if layer_of(module.removeprefix("app").removeprefix(".")) > layer_of(name)]


def forbidden_imports(name: str, modules: list[str]) -> list[str]:
    found = []
    for prefix, forbidden in FORBIDDEN.items():
        if not is_within(name, prefix) or (prefix == "services" and is_within(name, "services.messaging")):
            continue
        for module in modules:
            is_allowed = any(is_within(name, who) and is_within(module, what) for who, what in ALLOWED)
            if any(is_within(module, what) for what in forbidden) and not is_allowed:
                found.append(module)
    return found


def test_the_rules_below_would_find_a_breach():
    assert upward_imports("events", ["app.services.pages"]) == ["app.services.pages"]
    assert upward_imports("services.messaging.publisher", ["app.events", "json"]) == []
    assert forbidden_imports("services.messaging.sse_stream", ["app.db.inbox"]) == ["app.db.inbox"]
    assert forbidden_imports("services.messaging.sse_stream", ["fastapi", "app.services.messaging.cursor"]) == [
        "fastapi"
    ]
    assert forbidden_imports("api.routes.messages", ["app.db.pool"]) == ["app.db.pool"]
    assert list(bare_tasks(ast.parse("asyncio.create_task(work())\nloop.create_task(w)\ntask = create_task(w)")))[1:]
    assert list(texts(ast.parse('"""PUBLISH"""\nx = b"PUBLISH"\ny = f"user:{z}"'))) == ["PUBLISH", "user:"]
    assert list(clauses_cited('"""Protocol 1.2, 3.1 to 3.3 and 9.1."""')) == ["1.2", "3.1", "3.3", "9.1", "3.2"]


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_imports_point_down_only(path):
    modules = list(imports_of(path))
    assert upward_imports(NAMES[path], modules) == []
    assert forbidden_imports(NAMES[path], modules) == []


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_no_file_is_longer_than_one_can_read(path):
    assert len(path.read_text().splitlines()) <= MAX_LINES


# --- Redis ---------------------------------------------------------------------------------------


def texts(tree: ast.Module) -> Iterator[str]:
    """Give every literal text that is no docstring."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in docstrings:
            if isinstance(node.value, bytes):
                yield node.value.decode("latin-1")
            elif isinstance(node.value, str):
                yield node.value


def files_with_text(pattern: str) -> set[str]:
    return {
        NAMES[path] for path in FILES if any(re.match(pattern, text) for text in texts(ast.parse(path.read_text())))
    }


def test_only_the_publisher_publishes():
    assert files_with_text(r"S?PUBLISH$") == {"services.messaging.publisher"}
    callers = {
        NAMES[path]
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"publish", "spublish"}
    }
    assert callers == {"services.messaging.publisher"}


def test_the_names_of_channels_are_built_in_one_place():
    assert files_with_text(r"(user|probe):") == {"services.messaging.channels"}


def test_redis_is_the_only_source_of_notifications():
    """PostgreSQL's own would be a second one, with an order of its own."""
    sql = [path for path in APP.rglob("*.sql") if re.search(r"\b(NOTIFY|LISTEN|pg_notify)\b", path.read_text())]
    assert sql == []
    assert files_with_text(r"(?s).*\b(NOTIFY|LISTEN|pg_notify)\b") == set()
    assert any("INSERT" in path.read_text() for path in APP.rglob("*.sql"))  # the statements are where this looks


# --- Tasks ---------------------------------------------------------------------------------------


def bare_tasks(tree: ast.Module) -> Iterator[int]:
    """Give the lines where a task is started and not kept: the loop itself holds it only weakly."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            function = node.value.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            if name in {"create_task", "ensure_future"}:
                yield node.lineno


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_every_task_has_an_owner(path):
    assert list(bare_tasks(ast.parse(path.read_text()))) == []


# --- The protocol --------------------------------------------------------------------------------

CLAUSE = r"[0-9]+\.[0-9]+"
CITATION = re.compile(rf"Protocol\s+({CLAUSE}(?:(?:,\s*|\s+to\s+|\s+and\s+|,\s*and\s+){CLAUSE})*)")


def clauses_cited(text: str) -> Iterator[str]:
    """Give the clauses that a text cites: `Protocol 1.2, 3.1 to 3.3 and 9.1`."""
    for citation in CITATION.findall(text):
        words = re.findall(rf"{CLAUSE}|to", citation)
        for word in words:
            if word != "to":
                yield word
        for (first, word), (_, last) in pairwise(pairwise(words)):
            if word == "to":
                chapter, start = first.split(".")
                yield from (f"{chapter}.{n}" for n in range(int(start) + 1, int(last.split(".")[1])))


def test_every_clause_of_the_protocol_is_held_by_a_test_and_every_citation_exists():
    clauses = set(re.findall(rf"^({CLAUSE})\s", (BACKEND.parent / "docs/protocol.md").read_text(), re.MULTILINE))
    assert len(clauses) > 20
    cited: dict[str, str] = {}
    for path in sorted((BACKEND / "tests").rglob("test_*.py")):
        if path != Path(__file__):
            cited |= dict.fromkeys(clauses_cited(path.read_text()), path.name)
    assert {clause: name for clause, name in cited.items() if clause not in clauses} == {}
    assert clauses - set(cited) == set()
