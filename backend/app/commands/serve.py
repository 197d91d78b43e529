"""`gapless serve`: one process, or a supervisor and its workers."""

from __future__ import annotations

import os

from app import serving
from app.exits import Exit
from app.settings import Settings


def run(*, workers: int | None, host: str | None, port: int | None) -> Exit:
    """Serve until a signal."""
    options = {"WORKERS": workers, "HOST": host, "PORT": port}
    # By the environment, where workers read it, too.
    os.environ.update({name: str(value) for name, value in options.items() if value is not None})
    settings = Settings()
    with serving.open_listener(settings) as listener:
        if settings.workers == 1:
            return serving.serve(settings, listener)
        from app.supervisor import supervise  # noqa: PLC0415 - only here

        return supervise(settings, listener)
