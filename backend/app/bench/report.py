"""The report: one HTML page that needs nothing else, the same table as Markdown, and the numbers as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, Final

from app import __version__
from app.bench import charts
from app.bench.charts import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.bench.machine import Machine
    from app.bench.results import Metric, ProfileResult

_TEMPLATE: Final = Path(__file__).with_name("report.html")


def document(machine: Machine, results: Sequence[ProfileResult]) -> dict[str, Any]:
    """Give everything for JSON."""
    return {
        "gapless": __version__,
        "ok": all(result.is_right for result in results),
        "warnings": warnings_of(machine, results),
        "machine": asdict(machine),
        "profiles": [result.document() for result in results],
    }


def write(folder: Path, machine: Machine, results: Sequence[ProfileResult]) -> list[Path]:
    """Write report.html, report.md and report.json into `folder`; gives their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "report.html": html(machine, results),
        "report.md": markdown(machine, results),
        "report.json": json.dumps(document(machine, results), indent=1) + "\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def warnings_of(machine: Machine, results: Sequence[ProfileResult]) -> list[str]:
    """Give all reasons for doubt, the machine's first."""
    found = [machine.warning] if machine.warning else []
    if machine.is_quick:
        found.append("A smoke run (--quick): few streams, short times. Its numbers are not those of the descriptions.")
    disturbed = [result.name for result in results if result.disturbance]
    if disturbed:
        found.append(f"Others were at work on these cores during {', '.join(disturbed)}.")
    return found + [f"{result.name}: {warning}" for result in results for warning in result.warnings]


def rows_of(
    results: Sequence[ProfileResult], *, only_targets: bool = False
) -> list[tuple[str, str, str, str, str, str]]:
    """Give rows of profile, what, target, median, range, verdict; all, or those that have a target."""
    rows = []
    for result in results:
        if result.skipped:
            rows.append((result.name, f"skipped: {result.skipped}", "", "", "", ""))
        for metric in result.metrics:
            if only_targets and metric.target is None:
                continue
            spread = f"{number(min(metric.values))} to {number(max(metric.values))}" if len(metric.values) > 1 else ""
            rows.append(
                (
                    result.name,
                    metric.name,
                    target_text(metric),
                    f"{number(metric.median)} {metric.unit}",
                    spread,
                    {True: "met", False: "missed", None: ""}[metric.meets_target],
                )
            )
        rows.append((result.name, "counted and checked", "0 wrong", *_counted(result)))
    return rows


def target_text(metric: Metric) -> str:
    """Write a target with its direction."""
    if metric.target is None:
        return ""
    return f"{'≥' if metric.better == 'more' else '≤'} {number(metric.target)} {metric.unit}"


def faults_text(result: ProfileResult) -> str:
    """Name what is wrong, or say that nothing is."""
    wrong = [f"{count:,} {name.replace('_', ' ')}" for name, count in result.faults.items() if count]
    return ", ".join([*wrong, *result.errors]) or "nothing wrong"


def _counted(result: ProfileResult) -> tuple[str, str, str]:
    return f"{result.checked:,} events", faults_text(result), "right" if result.is_right else "WRONG"


# --- Markdown ------------------------------------------------------------------------------------


def markdown(machine: Machine, results: Sequence[ProfileResult]) -> str:
    """Write the table, for documents."""
    lines = ["# Gapless bench", ""]
    lines += [f"- {name}: {text}" for name, text in _facts(machine)]
    if warnings := warnings_of(machine, results):
        lines += ["", *(f"> {warning}" for warning in warnings)]
    lines += ["", "| profile | measured | target | median | min to max | |", "|---|---|---|---:|---|---|"]
    lines += [
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"
        for row in rows_of(results)
    ]
    lines += ["", "Share of one core:", "", "| profile | who |", "|---|---|"]
    lines += [f"| {result.name} | {_shares_text(result)} |" for result in results if result.cpu]
    return "\n".join(lines) + "\n"


def _shares_text(result: ProfileResult) -> str:
    shares = result.document()["cpu"]
    return ", ".join(f"{name} {share:.0%}" for name, share in shares.items())


def _facts(machine: Machine) -> list[tuple[str, str]]:
    return [
        ("Commit", machine.commit),
        ("Date", machine.started_at),
        ("Processor", f"{machine.cpu}, {machine.cores} cores"),
        ("Memory", f"{machine.memory_gb:g} GB"),
        ("System", machine.kernel),
        ("Cores", machine.pinned or "not pinned"),
        ("Load average at the start", f"{machine.load_average:g}"),
        ("Servers", ", ".join(f"{name} {version}" for name, version in machine.servers.items()) or "unknown"),
        ("Python", machine.python),
        ("Libraries", ", ".join(f"{name} {version}" for name, version in machine.libraries.items())),
    ]


# --- HTML ----------------------------------------------------------------------------------------


def html(machine: Machine, results: Sequence[ProfileResult]) -> str:
    """Write the page."""
    is_right = all(result.is_right for result in results)
    checked = sum(result.checked for result in results)
    verdict = (
        f"{checked:,} events received and checked: none lost, doubled or out of order."
        if is_right
        else "Something that was counted is wrong; see the profiles below."
    )
    head = ("profile", "measured", "target", "median", "min to max", "")
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        commit=escape(machine.commit),
        subtitle=escape(f"Commit {machine.commit}, {machine.started_at}, {machine.cpu}, {machine.cores} cores"),
        verdict=verdict,
        verdict_class="good" if is_right else "bad",
        warnings="".join(f'<p class="warning">{escape(warning)}</p>' for warning in warnings_of(machine, results)),
        links=" ".join(f'<a href="#{result.name}">{escape(result.title)}</a>' for result in results),
        summary=_table(head, rows_of(results, only_targets=True)),
        profiles="".join(_section(result) for result in results),
        machine=_table(("what", "here"), _facts(machine)),
    )


def _section(result: ProfileResult) -> str:
    drawn = "".join(charts.draw(chart) for chart in result.charts)
    shares = result.document()["cpu"]
    doubts = [*result.warnings, *([result.disturbance] if result.disturbance else [])]
    meters = "".join(
        f'<span>{escape(name)} <meter min="0" max="1" value="{share:.3f}"></meter> {share:.0%}</span>'
        for name, share in shares.items()
    )
    head = ("measured", "target", "median", "min to max", "")
    return (
        f'<section id="{result.name}"><h2>{escape(result.title)}</h2><p class="quiet">{escape(result.about)}</p>'
        + "".join(f'<p class="warning">{escape(warning)}</p>' for warning in doubts)
        + f'<div class="scroll">{_table(head, [row[1:] for row in rows_of([result])])}</div>'
        + f'<div class="charts">{drawn}</div>'
        + (f'<div class="meters"><span class="quiet">Share of a core:</span>{meters}</div>' if meters else "")
        + "</section>"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    numeric = {place for place, name in enumerate(head) if name == "median"}
    unbroken = {place for place, name in enumerate(head) if name == "target"}
    classes = {"met": "good", "right": "good", "missed": "bad", "WRONG": "bad"}

    def cell(place: int, text: str, tag: str) -> str:
        names = [
            *(["n"] if place in numeric else []),
            *(["w"] if place in unbroken else []),
            *([classes[text]] if text in classes else []),
        ]
        attribute = f' class="{" ".join(names)}"' if names else ""
        return f"<{tag}{attribute}>{escape(text)}</{tag}>"

    body = "".join(
        "<tr>" + "".join(cell(place, text, "td") for place, text in enumerate(row)) + "</tr>" for row in rows
    )
    titles = "".join(cell(place, text, "th") for place, text in enumerate(head))
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"
