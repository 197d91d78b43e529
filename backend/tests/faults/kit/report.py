"""Results into words: `python -m tests.faults.kit.report RESULTS [DOCUMENT]`.

Prints the table of what a run of scenarios found. With a document (docs/reliability.md) the table and the pictures
of the interesting ones go there, between its markers.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.faults.kit.picture import draw

Row = dict[str, Any]
BEGIN, END = "<!-- scenarios:begin -->", "<!-- scenarios:end -->"
PICTURES = Path("images", "faults")
FIGURES = ("sends", "deliveries", "longest delay", "slowest answer", "seed", "commit")
NONE = "-"  # a scenario without load
LONG_NOTE = 80  # characters
SHORT_COMMIT = 7
NOT_PLAYED: Row = {"passed": False, "seconds": 0.0}


def main(results: str, document: str | None = None) -> int:
    """Print the table and, if wanted, write the document. Gives 1 when a scenario failed or none was played."""
    rows = read(Path(results))
    sys.stdout.write(as_text(rows))
    if document is not None:
        write(Path(document), rows)
    return 0 if rows and not any(_is_broken(row) for row in rows) else 1


def read(results: Path) -> list[Row]:
    """Every row that was left there, in the order of the catalogue."""
    rows = (json.loads(file.read_text()) for file in results.glob("*.json"))
    return sorted((NOT_PLAYED | row if "not_played" in row else row for row in rows), key=_order)


def as_text(rows: Sequence[Row]) -> str:
    """For a terminal: a line per scenario."""
    lines = []
    for row in rows:
        verdict = "FAILED" if _is_broken(row) else "ok" if row["passed"] else "-"
        figures = f"late {_late(row):>6}  answer {_answer(row):>6}" if row.get("summary") else " " * 28
        lines.append(f"{verdict:<6} {row['number']:<5} {row['seconds']:>5.0f} s  {figures}  {row['title']}")
        if "not_played" in row:
            lines.append(f"{'':<17}not played: {row['not_played']}")
    failed = sum(map(_is_broken, rows))
    total = sum(row["seconds"] for row in rows)
    lines.append(f"{len(rows)} scenarios in {total / 60:.0f} minutes, {failed} failed")
    return "\n".join(lines) + "\n"


def as_markdown(rows: Sequence[Row], pictured: Iterable[Row]) -> str:
    """For the document: where and when, the table, the pictures."""
    played = [row for row in rows if "not_played" not in row]
    commits = ", ".join(sorted({row["commit"] for row in played}))
    days = sorted({row["day"] for row in played})
    held = sum(row["passed"] for row in played)
    lines = [
        f"{len(played)} scenarios, {held} held. {' to '.join(dict.fromkeys([days[0], days[-1]]))}, commit {commits}.",
        f"Machine: {'; '.join(sorted({row['machine'] for row in played}))}.",
        "",
        _cells("", "scenario", "expected, beside what always is", "result", "seen", *FIGURES),
        _cells(*["---"] * (5 + len(FIGURES))),
    ]
    for row in rows:
        verdict = "held" if row["passed"] else "**broken**" if _is_broken(row) else f"not played: {row['not_played']}"
        lines.append(_cells(row["number"], row["title"], row["expect"], verdict, _notes(row), *_figures(row)))
    for row in pictured:
        file = (PICTURES / f"{row['number']}.svg").as_posix()
        lines += ["", f"![{row['number']}, {row['title']}: sends, deliveries and delays over time]({file})"]
    return "\n".join(lines)


def write(document: Path, rows: Sequence[Row]) -> None:
    """Put the table and the pictures into the document, and the pictures beside it."""
    pictured = [row for row in rows if row.get("pictured") and row.get("timeline")]
    folder = document.parent / PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    for row in pictured:
        (folder / f"{row['number']}.svg").write_text(draw(row))
    text = document.read_text()
    assert text.count(BEGIN) == text.count(END) == 1, f"{document} has no place for the table"
    made = f"{BEGIN}\n\n{as_markdown(rows, pictured)}\n\n{END}"
    document.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: made, text, flags=re.DOTALL))


def _is_broken(row: Row) -> bool:
    return not row["passed"] and "not_played" not in row


def _order(row: Row) -> tuple[int, str]:
    return int(re.findall(r"\d+", row["number"])[0]), row["number"]


def _cells(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _figures(row: Row) -> list[str]:
    total = row.get("summary")
    counts = [f"{total['sends']:,}", f"{total['handed_over']:,}"] if total else [NONE, NONE]
    return [*counts, _late(row), _answer(row), str(row.get("seed", NONE)), row.get("commit", NONE)[:SHORT_COMMIT]]


def _late(row: Row) -> str:
    return f"{row['summary']['slowest_delivery_seconds']:.2f} s" if row.get("summary") else NONE


def _answer(row: Row) -> str:
    return f"{row['summary']['slowest_answer_seconds']:.2f} s" if row.get("summary") else NONE


def _notes(row: Row) -> str:
    """What the scenario noted, in words; a whole schedule is for whoever plays it again."""
    notes = {name: f"{value:,g}" if isinstance(value, float | int) else str(value)
             for name, value in row.get("notes", {}).items()}  # fmt: skip
    said = "; ".join(f"{name.replace('_', ' ')}: {text}" for name, text in notes.items() if len(text) < LONG_NOTE)
    return said or NONE


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
