"""Runs Gapless and its peers in turn, on the same cores, with the same load client, and prints the table of
docs/performance.md: every target, what was measured, and the ratios to the peers.

    .venv/bin/python benchmarks/compare.py                          # everything that is installed, about 15 minutes
    .venv/bin/python benchmarks/compare.py --only fanout,broadcast --rounds 5
    .venv/bin/python benchmarks/compare.py --json > benchmarks/results/2026-11-23.json

Peers: nchan (Debian's libnginx-mod-nchan: one worker, messages in memory, published over pipelined HTTP),
the server of the tutorials (sse-starlette, a Redis connection per client), and the send route with
SQLAlchemy's ORM. `make bench-deps` installs what the last two need. What is missing is named and skipped.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import uvloop
from peer_loads import MISSING, PEERS_OF

from app.bench import machine as machines
from app.bench.plan import Plan, Run
from app.bench.profiles import PROFILES
from app.bench.progress import Progress
from app.bench.results import Metric, ProfileResult
from app.bench.stage import OwnStage, own_stage

# What is measured against a peer: profile, peer, least ratio. Other targets stand in the profiles.
RATIOS = (
    ("fanout", "nchan", 1.6),
    ("fanout", "tutorial", 5.0),
    ("broadcast", "nchan", 1.3),
    ("broadcast", "tutorial", None),
    ("send", "orm", 7.0),
)
RATE = 0  # the place of a profile's own rate among its metrics


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    profile: str
    what: str
    target: str
    measured: str
    spread: str
    is_met: bool | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one repeat")
    parser.add_argument("--rounds", type=int, default=3, help="how often each server that has a peer gets its turn")
    parser.add_argument("--only", default=",".join(PROFILES), help="profiles, by comma")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    chosen = options.only.split(",")
    unknown = [name for name in chosen if name not in PROFILES]
    if unknown:
        parser.error(f"there is no profile {unknown[0]}; there are {', '.join(PROFILES)}")
    plan = Plan(repeats=options.repeats, seconds=options.seconds)
    machine = machines.describe()
    with own_stage(is_shared=False) as stage, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        machine.pinned = stage.cores.describe()
        results, peers = runner.run(measure(stage, plan, chosen, rounds=options.rounds))
    rows = list(table(results, peers))
    if options.json:
        document = {
            "machine": asdict(machine),
            "rows": [asdict(row) for row in rows],
            "gapless": [result.document() for result in results],
            "peers": peers,
            "missing": {peer: reason for peer, reason in MISSING.items() if reason},
        }
        print(json.dumps(document, indent=1))
    print_table(rows, peers, out=sys.stderr if options.json else sys.stdout)
    print(f"\n{machine.cpu}, {machine.cores} cores, commit {machine.commit}, {machine.started_at}", file=sys.stderr)
    wrong = [result for result in results if not result.is_right]
    for result in wrong:
        print(f"{result.name}: what was delivered is not right: {result.faults} {result.errors}", file=sys.stderr)
    sys.exit(1 if wrong else 0)


async def measure(
    stage: OwnStage, plan: Plan, chosen: Sequence[str], *, rounds: int
) -> tuple[list[ProfileResult], dict[str, dict[str, list[float]]]]:
    """Give what Gapless's profiles have found, and the rates of the peers by profile and name."""
    results = {name: ProfileResult(name, PROFILES[name].title, PROFILES[name].about) for name in chosen}
    peers: dict[str, dict[str, list[float]]] = {}
    for turn in range(rounds):
        for name, result in results.items():
            there = {peer: load for peer, load in PEERS_OF.get(name, {}).items() if not MISSING[peer]}
            if name == "catchup" and turn:
                continue  # it compares two tables of its own, and takes minutes to fill them
            print(f"turn {turn + 1}: {name}, gapless", file=sys.stderr)
            # One repeat a turn where no peer takes turns: a shared machine is not as fast at all times.
            its_plan = plan if there or name == "catchup" else replace(plan, repeats=1)
            with Progress() as progress:
                await PROFILES[name].measure(Run(stage, its_plan, progress), result)
            for peer, load in there.items():
                print(f"turn {turn + 1}: {name}, {peer}", file=sys.stderr)
                peers.setdefault(name, {}).setdefault(peer, []).extend(await load(stage, plan))
    for result in results.values():
        result.judge_load(stage.load_cores)
    return list(results.values()), peers


def table(results: Sequence[ProfileResult], peers: dict[str, dict[str, list[float]]]) -> Iterator[Row]:
    """Give every target with what was measured: first the ratios of a profile, then its own."""
    for result in results:
        for profile, peer, least in RATIOS:
            values = peers.get(profile, {}).get(peer)
            if profile == result.name and values:
                yield ratio_row(result, peer, values, least)
        for metric in result.metrics:
            has_ratio = metric is result.metrics[RATE] and result.name in {"fanout", "broadcast"}
            if metric.target is not None and not has_ratio:
                yield own_row(result.name, metric)


def ratio_row(result: ProfileResult, peer: str, values: list[float], least: float | None) -> Row:
    rate = result.metrics[RATE]
    ratio = rate.median / statistics.median(values)
    spread = f"{rate.median:,.0f}/s against {statistics.median(values):,.0f}/s"
    target = f"≥ {least:g} times {peer}" if least else f"(times {peer})"
    return Row(result.name, rate.name, target, f"{ratio:.2f} times", spread, ratio >= least if least else None)


def own_row(profile: str, metric: Metric) -> Row:
    sign = "≥" if metric.better == "more" else "≤"
    spread = f"{min(metric.values):,.4g} to {max(metric.values):,.4g}"
    target = f"{sign} {metric.target:,.4g} {metric.unit}"
    return Row(profile, metric.name, target, f"{metric.median:,.4g} {metric.unit}", spread, metric.meets_target)


def print_table(rows: Sequence[Row], peers: dict[str, dict[str, list[float]]], *, out: object) -> None:
    print("| profile | what | target | measured, median | min to max | |", file=out)
    print("|---|---|---|---|---|---|", file=out)
    for row in rows:
        verdict = {True: "met", False: "missed", None: ""}[row.is_met]
        print(f"| {row.profile} | {row.what} | {row.target} | {row.measured} | {row.spread} | {verdict} |", file=out)
    for profile, found in peers.items():
        for peer, values in found.items():
            print(f"\n{profile}, {peer}: {min(values):,.0f} to {max(values):,.0f}/s", file=out)
    for peer, reason in MISSING.items():
        if reason:
            print(f"\n{peer} was not measured: {reason}", file=out)


if __name__ == "__main__":
    main()
