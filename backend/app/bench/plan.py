"""How long and how large: the full run, and the smoke run of `--quick`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.bench.progress import Progress
    from app.bench.results import ProfileResult
    from app.bench.stage import GivenStage, OwnStage


@dataclass(frozen=True, slots=True)
class Plan:
    """The size of a run. Its times are of one repeat; what is set up before is not in them."""

    quick: bool = False
    repeats: int = 3
    seconds: float = 5.0

    def size(self, full: int, quick: int) -> int:
        """Choose by the plan."""
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Run:
    """What a profile works with."""

    stage: OwnStage | GivenStage
    plan: Plan
    progress: Progress


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of load. `measure` fills the result in, as far as it comes."""

    name: str
    title: str
    about: str
    measure: Callable[[Run, ProfileResult], Awaitable[None]]
