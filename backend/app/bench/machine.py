"""Where it was measured: a number means nothing without its machine."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Final

QUIET_LOAD: Final = 0.25  # load average per core; above, others are at work here
_LIBRARIES: Final = ("uvicorn", "uvloop", "fastapi", "asyncpg", "hiredis", "redis", "orjson")


@dataclass(slots=True)
class Machine:
    """The machine and the software, as far as it can be found out."""

    cpu: str
    cores: int
    memory_gb: float
    kernel: str
    python: str
    commit: str
    started_at: str
    load_average: float  # over the last minute, at the start
    libraries: dict[str, str] = field(default_factory=dict)
    servers: dict[str, str] = field(default_factory=dict)  # PostgreSQL and Redis or Valkey, by name
    is_quick: bool = False  # a smoke run
    pinned: str = ""  # who ran on which cores

    @property
    def warning(self) -> str | None:
        """What makes the numbers doubtful before anything was measured."""
        if self.load_average > QUIET_LOAD * self.cores:
            return (
                f"This machine was not quiet: load average {self.load_average:.1f} on {self.cores} cores at the start. "
                "Times and rates are worth little."
            )
        return None


def describe() -> Machine:
    """Look at this machine."""
    load = os.getloadavg()[0]
    return Machine(
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3, 1),
        kernel=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        commit=_commit(),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        load_average=round(load, 2),
        libraries={name: metadata.version(name) for name in _LIBRARIES},
    )


def _cpu_model() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    """Name the commit of the source this runs from, and whether it was changed since."""
    folder = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],  # noqa: S607 - whatever git there is
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
            timeout=5,
        ).stdout.strip()
        changed = subprocess.run(
            # Without the index's lock: only to look.
            ["git", "--no-optional-locks", "status", "--porcelain", "--untracked-files=no"],  # noqa: S607 - the same
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
            timeout=5,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return f"gapless {metadata.version('gapless')}"
    return f"{head}{' and changes that are not committed' if changed else ''}"
