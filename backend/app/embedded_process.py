"""A server that runs beside us: started, watched until ready, ended with us."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

START_TIMEOUT_SECONDS = 30.0  # a slow disk recovering after a power cut
STOP_TIMEOUT_SECONDS = 10.0  # PostgreSQL writes its checkpoint in this time
PORT_ATTEMPTS = 5  # another process may take the port between our look and the server's bind
_POLL_SECONDS = 0.01
_LOG_TAIL_LINES = 15


class EmbeddedError(Exception):
    """An embedded server cannot run here; the message says what to do.

    Not a GaplessError: it is read on a terminal and never reaches HTTP.
    """


class PortTakenError(EmbeddedError):
    """Somebody else listens on the port."""


class ServerProcess:
    """One server process of ours, for its owner to stop.

    `pid` is the server's own: the commands in front of it replace themselves by `exec`.
    """

    stop_signal = signal.SIGTERM

    def __init__(self, process: subprocess.Popen[bytes], port: int, *, url: str, log: Path) -> None:
        self.pid = process.pid
        self.port = port
        self.url = url
        self.log = log
        self._process = process

    @property
    def running(self) -> bool:
        """Whether the process exists; a stopped (SIGSTOP) one does."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End the server in good order; by force after 10 s. Safe to call twice."""
        if not self.running:
            return
        self._process.send_signal(self.stop_signal)
        # A test may have frozen it: then it would see the signal only when thawed.
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the server as a crash would."""
        self._process.kill()
        self._process.wait()


def spawn(
    command: Sequence[str],
    log: Path,
    *,
    parent_death_signal: str,
    prefix: Sequence[str] = (),
) -> subprocess.Popen[bytes]:
    """Start a server with its output in `log`; the previous start's log stays as `.old`.

    `prefix` is a command that changes who the server runs as, and ends in `exec`.
    """
    if log.exists():
        log.replace(log.with_suffix(".log.old"))
    # 0600: PostgreSQL quotes failed statements, and statements hold messages.
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        return subprocess.Popen(
            # The change of user comes first: it would clear the signal.
            [*prefix, *_ends_with_us(parent_death_signal), *command],
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            # Ctrl-C goes to a terminal's whole process group; the server must outlive the drain.
            start_new_session=True,
            env=clean_environment(),
            cwd=log.parent,
        )
    finally:
        os.close(descriptor)


def clean_environment() -> dict[str, str]:
    """Neither PGPORT and its kin, nor a preloaded clock, nor the user's language."""
    keep = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {**keep, "LC_ALL": "C.UTF-8"}


def wait_until_ready(
    process: subprocess.Popen[bytes],
    ready: Callable[[], bool],
    *,
    name: str,
    log: Path,
    setting: str,
) -> None:
    """Return once `ready()`.

    Raises PortTakenError or EmbeddedError with the end of the log when the server ends or takes
    longer than 30 s; it is gone then. `setting` is what to set to do without it.
    """
    give_up_at = time.monotonic() + START_TIMEOUT_SECONDS
    while process.poll() is None:
        if ready():
            return
        if time.monotonic() > give_up_at:
            process.kill()
            process.wait()
            break
        time.sleep(_POLL_SECONDS)
    error = PortTakenError if "Address already in use" in _read(log) else EmbeddedError
    raise error(
        f"{name} did not start. Set {setting} to use a server of your own, or see {log}, which ends:\n{log_tail(log)}"
    )


def log_tail(log: Path) -> str:
    """The last lines of a log, indented, for an error message."""
    lines = _read(log).splitlines()[-_LOG_TAIL_LINES:]
    return "\n".join(f"  {line}" for line in lines) or "  (empty)"


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _ends_with_us(parent_death_signal: str) -> list[str]:
    if sys.platform != "linux":
        return []
    if not shutil.which("setpriv"):
        raise EmbeddedError(
            "setpriv (package util-linux) is missing: without it the embedded servers would stay "
            "behind. Install it, or set DATABASE_URL and REDIS_URL."
        )
    return ["setpriv", "--pdeathsig", parent_death_signal]


def _read(log: Path) -> str:
    return log.read_text(errors="replace") if log.exists() else ""
