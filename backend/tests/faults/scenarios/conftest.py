"""Which scenarios are played, how large, and where what they found is left.

FAULTS=whole plays all of them at full size (`make faults`), as many as fit into FAULTS_MINUTES if that is set;
otherwise those marked for the gate are played small. SEED=… plays the same plan again.
"""

from __future__ import annotations

import functools
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Generator, Sequence
from pathlib import Path

import pytest

from app.bench import machine
from tests.faults.kit.cluster import Cluster
from tests.faults.kit.scene import GATE, WHOLE, Scene, write_row

ROOT = Path(__file__).parents[4]
PLAYS_ALL = os.environ.get("FAULTS") == "whole"
MINUTES = float(os.environ.get("FAULTS_MINUTES") or 0)
RESULTS = Path(os.environ.get("FAULTS_RESULTS") or ROOT / ".gapless" / "faults")
USUAL_SECONDS = 45.0  # of one scenario that does not say otherwise
OUTCOME = pytest.StashKey[str]()
NOT_PLAYED = pytest.StashKey[str]()
HERE = machine.describe()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    scenarios = [item for item in items if Path(__file__).parent in item.path.parents]
    played = set(_chosen(scenarios))
    config.hook.pytest_deselected(items=[item for item in scenarios if item not in played])
    items[:] = [item for item in items if item in played or item not in set(scenarios)]


def _chosen(scenarios: Sequence[pytest.Item]) -> Sequence[pytest.Item]:
    """Which to play. Where time is short, every commit begins at another one, so that all are looked at in turn."""
    if not PLAYS_ALL:
        return [item for item in scenarios if _marker(item).kwargs.get("gate")]
    if not MINUTES or not scenarios:
        return scenarios
    first = random.Random(HERE.commit[:12]).randrange(len(scenarios))
    chosen, seconds = [], 0.0
    for item in [*scenarios[first:], *scenarios[:first]]:
        if _marker(item).kwargs.get("mounts") and not may_mount():
            continue
        takes = _marker(item).kwargs.get("seconds", USUAL_SECONDS)
        if seconds + takes <= MINUTES * 60:
            chosen.append(item)
            seconds += takes
    return chosen


@functools.cache
def may_mount() -> bool:
    """Whether this user may mount a file system: no package gives that right."""
    mount = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(mount, check=False, capture_output=True, timeout=10).returncode == 0


def pytest_report_collectionfinish(items: Sequence[pytest.Item]) -> str:
    scenarios = [item for item in items if Path(__file__).parent in item.path.parents]
    return f"scenarios to play: {', '.join(_marker(item).args[0] for item in scenarios)}" if PLAYS_ALL else ""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.excinfo is not None and call.excinfo.errisinstance(pytest.skip.Exception):
        item.stash[NOT_PLAYED] = str(call.excinfo.value)
        number, title, expect = _marker(item).args
        write_row(RESULTS, {"number": number, "title": title, "expect": expect, "not_played": item.stash[NOT_PLAYED]})
    elif report.when == "call":
        item.stash[OUTCOME] = "" if report.passed else str(report.longrepr)[-2000:]
    return report


@pytest.fixture
async def scene(request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    """The scenario's cluster, not yet started, and what to play on it."""
    marker = _marker(request.node)
    number, title, expect = marker.args
    folder = Path(tempfile.mkdtemp(prefix="gapless-scene-"))
    cluster = Cluster.below(folder)
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**8))
    scene = Scene(number, title, expect, WHOLE if PLAYS_ALL else GATE, seed, cluster, RESULTS)
    try:
        yield scene
    finally:
        await cluster.close()
        why = request.node.stash.get(OUTCOME, "did not end")
        if NOT_PLAYED not in request.node.stash:
            scene.write_result(
                why=why,
                commit=HERE.commit,
                day=HERE.started_at[:10],
                machine=f"{HERE.cores} cores, {HERE.cpu}",
                pictured=bool(marker.kwargs.get("pictured")),
            )
        if not why:
            shutil.rmtree(folder, ignore_errors=True)


def _marker(item: pytest.Item) -> pytest.Mark:
    found = item.get_closest_marker("scenario")
    assert found is not None, f"{item.nodeid} is not marked as a scenario"
    return found
