"""Which scenarios are played, how large, and where what they found is left.

FAULTS=whole plays all of them at full size (`make faults`); otherwise those marked for the gate are played small.
SEED=… plays the same plan again.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest

from tests.faults.kit.cluster import Cluster
from tests.faults.kit.scene import GATE, WHOLE, Scene

ROOT = Path(__file__).parents[4]
PLAYS_ALL = os.environ.get("FAULTS") == "whole"
RESULTS = Path(os.environ.get("FAULTS_RESULTS", ROOT / ".gapless" / "faults"))
OUTCOME = pytest.StashKey[str]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if PLAYS_ALL:
        return
    here = Path(__file__).parent
    left = [item for item in items if here in item.path.parents and not _marker(item).kwargs.get("gate")]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in set(left)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[OUTCOME] = "" if report.passed else str(report.longrepr)[-2000:]
    return report


@pytest.fixture
async def scene(request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    """The scenario's cluster, not yet started, and what to play on it."""
    number, title, expect = _marker(request.node).args
    folder = Path(tempfile.mkdtemp(prefix="gapless-scene-"))
    cluster = Cluster.below(folder)
    seed = int(os.environ.get("SEED", random.SystemRandom().randrange(10**8)))
    scene = Scene(number, title, expect, WHOLE if PLAYS_ALL else GATE, seed, cluster, RESULTS)
    try:
        yield scene
    finally:
        await cluster.close()
        why = request.node.stash.get(OUTCOME, "did not end")
        scene.write_result(passed=not why, why=why)
        if not why:
            shutil.rmtree(folder, ignore_errors=True)


def _marker(item: pytest.Item) -> pytest.Mark:
    found = item.get_closest_marker("scenario")
    assert found is not None, f"{item.nodeid} is not marked as a scenario"
    return found
