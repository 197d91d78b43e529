"""Runs one real server process from the environment: what `gapless serve` does, plus failpoints.

Failpoints exist here and nowhere in the product: FAILPOINT names a step of the send path and what
happens there: `before_publish:kill`, `before_publish:sleep=3`, `before_publish:drop`.
SIGUSR1 writes what the process holds to the file VITALS; SIGUSR2 blocks its event loop for BLOCK_SECONDS.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

from app import server
from app.main import Gapless
from app.observability import configure_logging, stats
from app.services.messaging.publisher import Publisher
from app.settings import Settings


def main() -> None:
    settings = Settings()
    configure_logging(settings.log_level, as_json=False)
    _arm(os.environ.get("FAILPOINT", ""))
    signal.signal(signal.SIGUSR1, lambda *_: _tell_vitals(Path(os.environ["VITALS"])))
    signal.signal(signal.SIGUSR2, lambda *_: time.sleep(float(os.environ["BLOCK_SECONDS"])))
    app = Gapless(settings)
    config = server.configure(app, host=settings.host, port=settings.port, trusted_proxies=settings.trusted_proxies)
    if os.environ.get("PLAIN_PROTOCOL"):  # as another ASGI server would be: without the wire extension
        config.http = "httptools"
    listener = server.listen(settings.host, settings.port)
    sys.stdout.write(f"PORT {listener.getsockname()[1]}\n")
    sys.stdout.flush()
    server.Server(config, on_drain=app.begin_drain).run(sockets=[listener])


def _tell_vitals(file: Path) -> None:
    """Runs in the main thread between two steps of the loop."""
    held = {"tasks": len(asyncio.all_tasks()), "streams": stats.streams_open}
    whole = file.with_suffix(".part")
    whole.write_text(json.dumps(held))
    whole.replace(file)


def _arm(failpoint: str) -> None:
    step, _, action = failpoint.partition(":")
    if step == "before_publish":
        publish = Publisher.new_message

        def failing(self: Publisher, message, **kwargs) -> None:
            _act(action)
            if action != "drop":
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


if __name__ == "__main__":
    main()
