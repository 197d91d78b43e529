"""`gapless bench` as a person runs it, small: every profile counts, checks and reports; nothing stays behind."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from app.bench.profiles import PROFILES
from tests.support.commands import dev_server, eventually, processes_below, run, running

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform != "linux", reason="the bench pins processes and reads /proc"),
]


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """Where the bench puts its servers."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


async def test_all_profiles_run_and_what_they_count_is_right(tmp_path: Path, temporary: Path):
    done = await run(tmp_path, "bench", "--quick", "--json", "--report", "out", TMPDIR=temporary)
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document["ok"]
    assert [profile["name"] for profile in document["profiles"]] == list(PROFILES)
    for profile in document["profiles"]:
        assert profile["skipped"] is None
        assert profile["errors"] == []
        assert set(profile["faults"].values()) == {0}, profile["name"]
        assert profile["checked_events"] > 0, profile["name"]
        assert all(metric["values"] for metric in profile["metrics"])
        assert {"load client", "server"} <= set(profile["cpu"])
    assert re.match(r"[0-9a-f]{12}|gapless ", document["machine"]["commit"])
    assert "fsync=on" in document["machine"]["servers"]["PostgreSQL"]
    assert json.loads((tmp_path / "out/report.json").read_text()) == document
    assert "| fanout | deliveries |" in (tmp_path / "out/report.md").read_text()
    page = (tmp_path / "out/report.html").read_text()
    parser = Page()
    parser.feed(page)
    assert parser.open == []
    assert parser.drawings >= len(PROFILES)
    assert re.findall(r"(?:src|href)=\"(?!#)[^\"]*|url\(|@import|https?:", page) == []
    assert list(temporary.iterdir()) == []
    assert processes_below(temporary) == []


async def test_a_running_server_is_measured_and_left_running(tmp_path: Path):
    async with dev_server(tmp_path) as (server, url):
        profiles = [word for name in PROFILES for word in ("--profile", name)]
        done = await run(tmp_path, "bench", "--quick", "--json", "--url", url, *profiles)
        assert done.code == 0, done.err
        document = json.loads(done.out)
        skipped = {profile["name"] for profile in document["profiles"] if profile["skipped"]}
        assert skipped == {"catchup"}  # it would fill somebody's database
        assert await server.stop() == 0


async def test_a_loss_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A frame that is never published, in the profile that publishes by itself."""
    from app.bench.plan import Plan, Run
    from app.bench.profiles import delivery
    from app.bench.progress import Progress
    from app.bench.results import ProfileResult
    from app.bench.stage import GivenStage

    commands = delivery.Pump._commands

    def with_a_hole(self, rounds):
        for number, command in enumerate(commands(self, rounds)):
            if number != 7:
                yield command

    monkeypatch.setattr(delivery.Pump, "_commands", with_a_hole)
    monkeypatch.chdir(tmp_path)
    async with dev_server(tmp_path) as (_, url):
        result = ProfileResult("fanout", "", "")
        plan = Plan(quick=True, repeats=1, seconds=0.3)
        await PROFILES["fanout"].measure(Run(GivenStage(url), plan, Progress(quiet=True)), result)
    # The server notices that there is something which PostgreSQL should have, and says so.
    assert not result.is_right
    assert result.faults["resyncs"] + result.faults["lost"] > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_everything_ends_with_the_bench(tmp_path: Path, temporary: Path, number: int):
    async with running(tmp_path, "bench", "--profile", "idle", "--seconds", "20", TMPDIR=temporary) as bench:
        await eventually(lambda: "streams" in bench.log.read_text())
        assert len(processes_below(temporary)) > 2
        bench.process.send_signal(number)
        assert await bench.ended(seconds=40) != 0
    await eventually(lambda: processes_below(temporary) == [])
    if number != signal.SIGKILL:
        assert list(temporary.iterdir()) == []
        assert "Traceback" not in bench.log.read_text()


@pytest.mark.parametrize(
    "arguments,sentence",
    [
        (("--profile", "nothing"), "There is no profile nothing; there are fanout"),
        (("--url", "https://example.com"), "the load client does not speak TLS"),
        (("--url", "http://127.0.0.1:1", "--profile", "send"), ""),
    ],
)
async def test_what_cannot_be_done_is_a_sentence(tmp_path: Path, arguments: tuple[str, ...], sentence: str):
    started = time.monotonic()
    done = await run(tmp_path, "bench", "--quick", *arguments, AUTH_JWT_SECRET="s" * 32)
    assert done.code != 0
    assert sentence in done.err
    assert "Traceback" not in done.err
    assert time.monotonic() - started < 30
    assert list(tmp_path.iterdir()) == []


class Page(HTMLParser):
    """Counts drawings, and finds elements that nobody closes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.drawings = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.drawings += tag == "svg"
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
