"""What the process says about itself: counters for Prometheus, and log lines."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
import traceback
from collections import Counter as Tally
from typing import TYPE_CHECKING, Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from app.exits import Exit
from app.log_writer import LogWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

registry = CollectorRegistry()

LOOP_TICK_SECONDS: Final = 0.25  # how often the event loop is looked at
LOOP_BLOCKED_SECONDS: Final = 1.0  # so late it is worth a line: everybody on this process waited
LATENCY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Stats:
    """What is counted. Plain integers where a delivery pays for it; labels only where they are few."""

    def __init__(self) -> None:
        """Start from zero."""
        self.streams_open = 0
        self.streams_opened = 0
        self.frames_delivered = 0
        self.frames_dropped = 0  # from Redis, not in the form of a frame
        self.ephemeral_dropped = 0  # not written to a client that was slow
        self.messages_replayed = 0
        self.gaps_repaired = 0
        self.slow_clients_closed = 0
        self.publishes = 0
        self.publishes_lost = 0
        self.head_checks_failed = 0
        self.sends_failed = 0
        self.send_retries = 0
        self.send_batches_isolated = 0
        self.redis_up = 0
        self.redis_reconnects = 0
        self.log_lines_lost = 0
        self.streams_closed: Tally[str] = Tally()
        self.resyncs: Tally[str] = Tally()
        self.send_batch_size = Histogram(
            "gapless_send_batch_size", "Sends per transaction.", registry=registry, buckets=(1, 2, 4, 8, 16, 32, 64)
        )
        self.publish_to_deliver = Histogram(
            "gapless_publish_to_deliver_seconds",
            "From publishing a probe to its arrival at this process, every 2 s.",
            registry=registry,
            buckets=LATENCY_BUCKETS,
        )
        self.event_loop_lag = Histogram(
            "gapless_event_loop_lag_seconds",
            "How late the event loop came to what was due, every quarter of a second.",
            registry=registry,
            buckets=LATENCY_BUCKETS,
        )
        self.requests = Counter(
            "gapless_http_requests", "Answered requests.", ("method", "route", "status"), registry=registry
        )
        self.request_seconds = Histogram(
            "gapless_http_request_seconds", "Time to answer.", ("route",), registry=registry, buckets=LATENCY_BUCKETS
        )

    def collect(self) -> Iterator[Metric]:
        """Give the plain integers to Prometheus."""
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(f"gapless_{name}", text, value=getattr(self, name))
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(f"gapless_{name}", text, value=getattr(self, name))
        for name, label, text in _TALLIES:
            family = CounterMetricFamily(f"gapless_{name}", text, labels=[label])
            for value, count in getattr(self, name).items():
                family.add_metric([value], count)
            yield family


_GAUGES = {
    "streams_open": "Open streams.",
    "redis_up": "1 while notifications flow, 0 in degraded mode.",
}
_COUNTERS = {
    "streams_opened": "Streams opened.",
    "frames_delivered": "Frames written to clients.",
    "frames_dropped": "Payloads on Redis that are no frames, or numbered beyond the inbox.",
    "ephemeral_dropped": "Ephemeral events not written to a slow client.",
    "messages_replayed": "Messages written by catch-up.",
    "gaps_repaired": "Holes in the live stream that were filled from PostgreSQL.",
    "slow_clients_closed": "Streams ended because the client did not read.",
    "publishes": "Frames published to Redis.",
    "publishes_lost": "Frames that could not be published in time; head checks deliver them.",
    "head_checks_failed": "Head checks that PostgreSQL did not answer.",
    "sends_failed": "Sends answered with 503.",
    "send_retries": "Batches that PostgreSQL asked to run again.",
    "send_batches_isolated": "Batches run again one target at a time.",
    "redis_reconnects": "Connections to Redis made anew.",
    "log_lines_lost": "Log lines that could not be written.",
}
_TALLIES = (
    ("streams_closed", "reason", "Streams ended by the server."),
    ("resyncs", "reason", "Clients told that continuity cannot be proven."),
)

stats = Stats()
registry.register(stats)


def metrics_text() -> bytes:
    """Write all metrics in Prometheus's text format."""
    return generate_latest(registry)


async def watch_event_loop() -> None:
    """Measure how late the event loop is, until cancelled; say so when it stood still."""
    while True:
        due_at = time.monotonic() + LOOP_TICK_SECONDS
        await asyncio.sleep(LOOP_TICK_SECONDS)
        late_seconds = max(0.0, time.monotonic() - due_at)
        stats.event_loop_lag.observe(late_seconds)
        if late_seconds > LOOP_BLOCKED_SECONDS:
            structlog.get_logger(__name__).warning("event_loop_blocked", seconds=round(late_seconds, 1))


def log_defect(event: str, error: BaseException, **fields: object) -> None:
    """Log an unexpected error by its type and place.

    Not by its text: PostgreSQL quotes the row it refused, Pydantic the value, and both hold messages.
    """
    if isinstance(error, MemoryError):
        end_without_memory()
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    structlog.get_logger(__name__).error(
        event,
        error=type(error).__name__,
        sqlstate=getattr(error, "sqlstate", None),
        frames=[f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
        **fields,
    )


def end_without_memory() -> None:
    """End this process at once, as the kernel does where memory is limited by a cgroup.

    A callback of the loop that found no memory is not called again: a listener accepts nobody for ever, a task is
    never woken, and whoever is connected waits. Clients of a process that has gone are served by the others.
    """
    with contextlib.suppress(Exception):
        structlog.get_logger(__name__).critical("out_of_memory")
        for handler in logging.getLogger().handlers:
            handler.flush()
    os._exit(Exit.FAILED)


def configure_logging(level: str, *, as_json: bool) -> None:
    """Send every log line, uvicorn's too, to standard error: JSON in production, plain text at a desk."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,  # first: a line that is not wanted costs nothing
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = LogWriter(sys.stderr.fileno(), on_lost=_count_lost_line)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = name != "uvicorn.access"  # it prints query strings
    # Their debug lines hold payloads, and their info lines say what ours say.
    for name in ("asyncio", "alembic", "httpx2", "sqlalchemy", "uvicorn.error"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _count_lost_line() -> None:
    stats.log_lines_lost += 1
