"""Runs one real server process from the environment: what `gapless serve` does, plus failpoints.

Failpoints exist here and nowhere in the product: FAILPOINT names a step of the send path and what
happens there: `before_publish:kill`, `before_publish:sleep=3`, `before_publish:drop`. With `hup:` in
front it happens from SIGHUP on.
SIGUSR1 writes what the process holds to the file VITALS; SIGUSR2 blocks its event loop for BLOCK_SECONDS.
NEWER makes it a later version that publishes fields and events nobody else knows. LOG_TO is where its
standard error goes, PLAIN_PROTOCOL takes its wire away.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

import orjson

from app import events, server
from app.main import Gapless
from app.observability import configure_logging, stats
from app.services.messaging.publisher import Publisher
from app.settings import Settings

is_hit = False  # SIGHUP came


def main() -> None:
    if os.environ.get("LOG_TO"):
        os.dup2(os.open(os.environ["LOG_TO"], os.O_WRONLY), sys.stderr.fileno())
    settings = Settings()
    configure_logging(settings.log_level, as_json=False)
    _arm(os.environ.get("FAILPOINT", ""))
    if os.environ.get("NEWER"):
        _become_newer()
    signal.signal(signal.SIGHUP, _hit)
    signal.signal(signal.SIGUSR1, lambda *_: _tell_vitals(Path(os.environ["VITALS"])))
    signal.signal(signal.SIGUSR2, lambda *_: time.sleep(float(os.environ["BLOCK_SECONDS"])))
    app = Gapless(settings)
    config = server.configure(app, host=settings.host, port=settings.port, trusted_proxies=settings.trusted_proxies)
    if os.environ.get("PLAIN_PROTOCOL"):  # as another ASGI server would be: without the wire extension
        config.http = "httptools"
    listener = server.listen(settings.host, settings.port)
    sys.stdout.write(f"PORT {listener.getsockname()[1]}\n")
    sys.stdout.flush()
    server.Server(config, on_drain=app.begin_drain, deadline=app.deadline).run(sockets=[listener])


def _hit(*_: object) -> None:
    global is_hit  # noqa: PLW0603 - a signal has no other way in
    is_hit = True


def _tell_vitals(file: Path) -> None:
    """Runs in the main thread between two steps of the loop."""
    counted = {name: value for name, value in vars(stats).items() if isinstance(value, int)}
    held = {"tasks": len(asyncio.all_tasks()), "streams": stats.streams_open, "counted": counted}
    whole = file.with_suffix(".part")
    whole.write_text(json.dumps(held))
    whole.replace(file)


def _arm(failpoint: str) -> None:
    waits = failpoint.startswith("hup:")
    step, _, action = failpoint.removeprefix("hup:").partition(":")
    if step == "before_publish":
        publish = Publisher.new_message

        def failing(self: Publisher, message, **kwargs) -> None:
            is_due = is_hit or not waits
            if is_due:
                _act(action)
            if not (is_due and action == "drop"):
                publish(self, message, **kwargs)

        Publisher.new_message = failing  # type: ignore[method-assign]
    elif step:
        sys.exit(f"unknown failpoint {step}")


def _act(action: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action.startswith("sleep="):
        time.sleep(float(action.removeprefix("sleep=")))
    elif action != "drop":
        sys.exit(f"unknown action {action}")


def _become_newer() -> None:
    """Add to every event what a later version might: fields, a kind of event, a control frame."""
    to_json, publish = events.to_json, Publisher.new_message

    def with_more(payload: object) -> bytes:
        known = orjson.loads(to_json(payload))
        return to_json({**known, "mood": {"of": ["a", "later", "version"]}, "pinned": None})

    def with_others(self: Publisher, message, **kwargs) -> None:
        users = [user_id for user_id, _ in kwargs["recipients"]]
        self.ephemeral("mood_changed", {"user_id": users[0], "mood": "later"}, user_ids=users)
        publish(self, message, **kwargs)
        self._publish_alike(b"!mood later", users)
        self._publish_alike(b"event: Mood.Of-2027\ndata: {}\n\n", users)  # no name that this version would give

    events.to_json = with_more
    Publisher.new_message = with_others  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
