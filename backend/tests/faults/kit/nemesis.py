"""Random faults. All of them follow from a seed and are drawn beforehand, so that a run can be made again."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.faults.kit.cluster import Cluster
from tests.faults.kit.nemesis_faults import KINDS, Fault

PAUSE_SECONDS = (5.0, 15.0)  # between one round's healing and the next round
FAULT_SECONDS = (3.0, 12.0)
TWO_AT_ONCE_SHARE = 0.35


@dataclass(frozen=True, slots=True)
class Round:
    """Faults that begin together, after a pause. All are healed when it is over."""

    pause_seconds: float
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        return f"after {self.pause_seconds:.0f} s: {' and '.join(map(str, self.faults))}"


def draw_rounds(seed: int, seconds: float, *, processes: int) -> list[Round]:
    """Draw rounds for about so long. Two at once are of different kinds: each must be able to heal by itself."""
    rng = random.Random(seed)
    rounds, total = [], 0.0
    while total < seconds:
        kinds = rng.sample(sorted(KINDS), 2 if rng.random() < TWO_AT_ONCE_SHARE else 1)
        faults = tuple(
            Fault(
                rng.choice(sorted(KINDS[kind])),
                rng.uniform(*FAULT_SECONDS),
                rng.randrange(processes),
                rng.getrandbits(32),
            )
            for kind in kinds
        )
        rounds.append(Round(rng.uniform(*PAUSE_SECONDS), faults))
        total += rounds[-1].pause_seconds + max(fault.seconds for fault in faults)
    return rounds


async def strike(cluster: Cluster, fault: Fault) -> None:
    """Make one fault, and heal it, also when it is cancelled."""
    (make,) = (faults[fault.what] for faults in KINDS.values() if fault.what in faults)
    await make(cluster, fault)
