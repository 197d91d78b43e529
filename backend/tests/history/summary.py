"""A run in numbers and in words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.history.findings import Finding, Kind
from tests.history.records import History, Outcome

SHOWN_PER_KIND = 5


@dataclass(frozen=True, slots=True)
class Summary:
    """`slowest_delivery_seconds`: from the acknowledgement to the last device, 0 where it was there before.

    `resyncs` tell devices to load everything anew, `change_resyncs` to ask what has changed: no loss, and no feat
    either. `positions_asked`: how far others have read, where no receipt had said so in the end.
    """

    seed: int
    sends: int
    attempts: int
    unknown: int
    stored: int
    handed_over: int
    streams: int
    resyncs: int
    slowest_answer_seconds: float
    slowest_delivery_seconds: float
    findings: dict[Kind, int]
    change_resyncs: int = 0
    changes: int = 0
    positions_asked: int = 0


def summarize(history: History, findings: Sequence[Finding]) -> Summary:
    return Summary(
        seed=history.seed,
        sends=len({(each.sender, each.key) for each in history.attempts}),
        attempts=len(history.attempts),
        unknown=sum(each.outcome is Outcome.UNKNOWN for each in history.attempts),
        stored=len(history.store),
        handed_over=sum(event.name == "new_message" for event in history.events),
        streams=len(history.streams),
        resyncs=sum(event.name == "resync" and event.scope == "all" for event in history.events),
        slowest_answer_seconds=max((each.ended_at - each.invoked_at for each in history.attempts), default=0),
        slowest_delivery_seconds=max((seconds for _, seconds in delays(history)), default=0),
        findings=dict(Counter(finding.kind for finding in findings)),
        change_resyncs=sum(event.name == "resync" and event.scope == "changes" for event in history.events),
        changes=sum(event.change is not None for event in history.events),
        positions_asked=history.positions_asked,
    )


def delays(history: History) -> Iterator[tuple[float, float]]:
    """Per hand-over by a stream: when, and how long after the acknowledgement (never below 0).

    Without what a device missed while it was away: that is how long it was away.
    """
    acknowledged_at: dict[str, float] = {}
    for attempt in history.attempts:
        if attempt.message_id is not None:
            known = acknowledged_at.get(attempt.message_id, math.inf)
            acknowledged_at[attempt.message_id] = min(known, attempt.ended_at)
    for event in history.events:
        if event.name == "new_message" and event.message is not None and event.message.id in acknowledged_at:
            since = acknowledged_at[event.message.id]
            if not since <= history.returns.get(event.device, -math.inf) <= event.at:
                yield event.at, max(0.0, event.at - since)


def describe(history: History, findings: Sequence[Finding]) -> str:
    """What to print: the seed first, for whoever wants to see it again."""
    total = summarize(history, findings)
    found = ", ".join(f"{count} {kind}" for kind, count in total.findings.items()) or "nothing found"
    told = (
        f"seed {total.seed}: {total.sends} sends in {total.attempts} attempts ({total.unknown} unknown), "
        f"{total.stored} stored, {total.handed_over} handed over on {total.streams} streams "
        f"({total.resyncs} reloads); slowest answer {total.slowest_answer_seconds:.2f} s, "
        f"slowest delivery {total.slowest_delivery_seconds:.2f} s; {found}"
    )
    if total.changes or total.change_resyncs:
        told += f"; {total.changes} changes told, {total.change_resyncs} times to ask for them"
    lines = [told]
    for kind in Kind:
        of_kind = [finding for finding in findings if finding.kind is kind]
        lines += [f"  {finding}" for finding in of_kind[:SHOWN_PER_KIND]]
    return "\n".join(lines)
