"""SQL is source with a name: `db/sql/*.sql` holds blocks that begin with `-- name: …`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).with_name("sql")


@cache
def statements(file: str) -> dict[str, str]:
    """Read one file of `db/sql/`: the statement of each name."""
    text = (_FOLDER / f"{file}.sql").read_text(encoding="utf-8")
    blocks = text.split("-- name: ")[1:]
    return {name.strip(): sql.strip() for name, _, sql in (block.partition("\n") for block in blocks)}
