"""Starting, pinning and measuring processes: the server under load, what stands behind it, and ourselves.

with start_server([sys.executable, "-m", "server"], cores=[0], log=path, environment={...}) as server:
    await until_answers(server, "127.0.0.1", 8000, "/health")
    meter = CpuMeter({"server": server.pid})
    ...
    meter.shares()["server"]            # of one core; children included
    memory_bytes(server.pid)
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 20.0  # a drain takes up to 12
_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_LOG_TAIL_BYTES: Final = 2000


class ProcessError(Exception):
    """A server could not be started or has died; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which cores the server may use, and which the load: everything else."""

    server: tuple[int, ...]
    load: tuple[int, ...]

    def describe(self) -> str:
        """Say who runs where."""
        server, load = (", ".join(map(str, cores)) for cores in (self.server, self.load))
        return f"server on {server}; load client, PostgreSQL and Valkey on {load}"

    @property
    def are_apart(self) -> bool:
        """Whether the two do not share a core."""
        return not set(self.server) & set(self.load)


def choose_cores() -> Cores:
    """Give the server one core of its own; the load client, PostgreSQL and Redis share the others."""
    mine = sorted(os.sched_getaffinity(0))
    return Cores((mine[0],), tuple(mine[1:]) or (mine[0],))


class ServerProcess:
    """A server of ours, for its owner to stop; a context manager."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Own `process`, which writes to `log`."""
        self.pid = process.pid
        self.log = log
        self._process = process

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def log_tail(self) -> str:
        """The end of what it wrote."""
        return self.log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace") if self.log.exists() else ""

    def stop(self) -> None:
        """End it in good order, or by force after 20 s. Safe to call twice."""
        if not self.running:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def start_server(
    command: Sequence[str],
    *,
    cores: Sequence[int],
    log: Path,
    environment: Mapping[str, str],
    folder: Path | None = None,
) -> ServerProcess:
    """Start a server on `cores`, in `environment` and nothing else, with its output in `log`.

    It ends when the thread that started it does, however that comes. Raises ProcessError.
    """
    prefix = []
    if shutil.which("setpriv"):
        prefix += ["setpriv", "--pdeathsig", "SIGTERM"]
    if shutil.which("taskset"):
        prefix += ["taskset", "-c", ",".join(map(str, cores))]
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(  # noqa: S603 - servers of ours, without a shell
                [*prefix, *command],
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C goes to a terminal's whole group; we stop it ourselves
            )
    except OSError as error:
        raise ProcessError(f"{command[0]} cannot be started: {error.strerror}.") from error
    return ServerProcess(process, log)


async def until_answers(server: ServerProcess, host: str, port: int, path: str) -> None:
    """Wait until `path` is answered with 200. Raises ProcessError with the end of the log."""
    deadline = time.monotonic() + START_SECONDS
    while server.running and time.monotonic() < deadline:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_connection(host, port)
                try:
                    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
                    if (await reader.readline()).startswith(b"HTTP/1.1 200"):
                        return
                finally:
                    writer.close()
        await asyncio.sleep(0.05)
    raise ProcessError(f"The server does not answer {path}:\n{server.log_tail()}")


# --- Measuring -----------------------------------------------------------------------------------


def children_of(pid: int) -> list[int]:
    """Give all processes below one, over all generations."""
    found = []
    with suppress(OSError):
        for tasks in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (tasks / "children").read_text().split()):
                found += [child, *children_of(child)]
    return found


def cpu_seconds(pid: int) -> float:
    """Give the processor time of a process and all below it, those that have ended included."""
    if pid == os.getpid():
        usage = resource.getrusage(resource.RUSAGE_SELF)  # without the servers that we have started
        return usage.ru_utime + usage.ru_stime
    total = 0
    for each in (pid, *children_of(pid)):
        with suppress(OSError, IndexError):
            # After the name, which may hold anything: fields 14 to 17 of proc(5).
            values = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[11:15]
            total += sum(map(int, values))
    return total / _TICKS_PER_SECOND


def memory_bytes(pid: int) -> int:
    """Give the resident memory of a process and all below it; pages that they share count once."""
    total = 0
    processes = [pid, *children_of(pid)]
    field = "Rss:" if len(processes) == 1 else "Pss:"
    for each in processes:
        with suppress(OSError):
            for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
                if line.startswith(field):
                    total += int(line.split()[1]) * 1024
    return total


def core_busy_seconds(cores: Iterable[int]) -> float:
    """Give how long programs have worked on these cores, in other virtual machines as well.

    Fields of proc(5): user, nice, system and steal; interrupts belong to nobody.
    """
    wanted = {f"cpu{core}" for core in cores}
    total = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *values = line.split()
        if name in wanted:
            total += sum(int(values[place]) for place in (0, 1, 2, 7))
    return total / _TICKS_PER_SECOND


class CpuMeter:
    """Who has used how much of a core since the meter was started."""

    def __init__(self, pids: Mapping[str, int], cores: Cores | None = None) -> None:
        """Measure these processes by name; with `cores` also what others did there.

        Whose name begins with "server" is under load, and on the server's core.
        """
        self._pids = dict(pids)
        self._cores = cores
        self._start = time.perf_counter()
        self._before = {name: cpu_seconds(pid) for name, pid in self._pids.items()}
        self._busy_before = self._busy()

    def shares(self) -> dict[str, float]:
        """Give the share of one core for each name.

        `others on the server's core` and `others on the load's cores` are neither ours nor under load: what
        they take is missing in what was measured.
        """
        seconds = time.perf_counter() - self._start
        shares = {name: (cpu_seconds(pid) - self._before[name]) / seconds for name, pid in self._pids.items()}
        if self._cores is not None:
            server, load = (after - before for after, before in zip(self._busy(), self._busy_before, strict=True))
            under_load = sum(share for name, share in shares.items() if name.startswith("server"))
            own_load = sum(shares.values()) - under_load
            shares["others on the server's core"] = max(0.0, server / seconds - under_load)
            shares["others on the load's cores"] = max(0.0, load / seconds - own_load)
        return shares

    def _busy(self) -> tuple[float, float]:
        if self._cores is None:
            return 0.0, 0.0
        return core_busy_seconds(self._cores.server), core_busy_seconds(self._cores.load)
