"""History in, findings out: no I/O, no clock, no knowledge of the server."""

from __future__ import annotations

from tests.history.answer_checks import check_answers
from tests.history.change_checks import check_changes
from tests.history.facts import Facts
from tests.history.findings import Finding, Kind
from tests.history.message_checks import check_messages
from tests.history.records import History
from tests.history.stream_checks import check_streams
from tests.history.view_checks import check_views


def check(history: History) -> list[Finding]:
    """Give every anomaly, in the order of `Kind`, then of time."""
    facts = Facts(history)
    findings = [
        *check_streams(history),
        *check_messages(facts),
        *check_changes(facts),
        *check_views(facts),
        *check_answers(facts),
    ]
    order = list(Kind)
    return sorted(findings, key=lambda one: (order.index(one.kind), one.at or 0, one.message, one.device))
