"""The demo chat at `/`: what was built is served, nothing beside it, and to developers only."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from app import __file__ as package
from tests.support.commands import Running, dev_server
from tests.support.servers import Server

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded servers need Linux"),
]

ROOT = Path(__file__).parents[3]
PAGE = '<!doctype html><title>Gapless</title><script type="module" src="/assets/index-Aa1.js"></script>'
SCRIPT = "export {}\n"


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A checkout with this very server and a page of its own; gives the folder of the page."""
    dist = tmp_path / "checkout/frontend/demo/dist"
    (dist / "assets").mkdir(parents=True)
    (tmp_path / "checkout/backend").mkdir()
    (tmp_path / "checkout/backend/app").symlink_to(Path(str(package)).parent)
    (dist / "index.html").write_text(PAGE)
    (dist / "assets/index-Aa1.js").write_text(SCRIPT)
    (dist / "assets/index-Bb2.css").write_text(":root{}")
    (dist / "secret.txt").write_text("beside the assets")
    (dist / "assets/way-out.txt").symlink_to(dist.parent / "outside.txt")
    (dist.parent / "outside.txt").write_text("outside")
    return dist


@asynccontextmanager
async def serving(dist: Path) -> AsyncIterator[tuple[Running, httpx2.AsyncClient]]:
    checkout = dist.parents[2]
    async with (
        dev_server(checkout / "data", "--no-demo", PYTHONPATH=checkout / "backend") as (server, url),
        httpx2.AsyncClient(base_url=url, trust_env=False, timeout=20) as client,
    ):
        yield server, client


async def test_the_page_is_asked_for_each_time_and_its_files_never_again(built: Path):
    async with serving(built) as (_, client):
        page = await client.get("/")
        assert (page.status_code, page.text) == (200, PAGE)
        assert page.headers["content-type"].startswith("text/html")
        assert page.headers["cache-control"] == "no-cache"
        assert (await client.get("/", headers={"If-None-Match": page.headers["etag"]})).status_code == 304
        assert (await client.head("/")).status_code == 200

        for name, media_type in (("index-Aa1.js", "/javascript"), ("index-Bb2.css", "text/css")):
            asset = await client.get(f"/assets/{name}")
            assert asset.status_code == 200
            assert media_type in asset.headers["content-type"]
            assert asset.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert asset.headers["x-content-type-options"] == "nosniff"
            again = await client.get(f"/assets/{name}", headers={"If-None-Match": asset.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
            assert "immutable" in again.headers["cache-control"]

        (built / "index.html").write_text("built again, while the server runs")
        assert (await client.get("/")).text == "built again, while the server runs"


async def test_the_page_may_run_only_scripts_and_styles_that_came_as_files(built: Path):
    async with serving(built) as (_, client):
        headers = (await client.get("/")).headers
        policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'self'"
        assert {policy[name] for name in ("object-src", "base-uri", "form-action", "frame-ancestors")} == {"'none'"}
        assert "unsafe" not in headers["content-security-policy"]
        assert policy["require-trusted-types-for"] == "'script'"
        assert headers["x-content-type-options"] == "nosniff"


async def test_nothing_but_the_built_files_can_be_read_and_other_paths_stay_the_apis(built: Path):
    async with serving(built) as (_, client):
        assert (await client.get("/assets/index-Aa1.js")).text == SCRIPT, "the way in is open"
        for path in (
            "/assets/..%2Fsecret.txt",
            "/assets/%2e%2e%2Fsecret.txt",
            "/assets/..%2f..%2foutside.txt",
            "/assets/%2e%2e",
            "/assets/way-out.txt",
            "/assets/%2Fetc%2Fpasswd",
            "/assets/%00",
            "/assets/" + "x" * 300,
            "/assets/",
            "/assets",
            "/assets/index-Zz9.js",
            "/secret.txt",
            "/index.html",
            "/api/v1/nothing",
            "/nothing",
        ):
            answer = await client.get(path)
            assert answer.status_code == 404, path
            assert answer.headers["content-type"] == "application/problem+json", path
            assert answer.json()["code"] == "not_found"
            assert "immutable" not in answer.headers.get("cache-control", ""), path
        assert (await client.post("/")).status_code == 405


async def test_without_a_built_page_the_server_starts_and_says_what_is_missing(built: Path):
    (built / "index.html").unlink()
    async with serving(built) as (server, client):
        page = await client.get("/")
        assert page.status_code == 200
        assert "Node 20" in page.text
        assert "immutable" not in page.headers["cache-control"]
        assert (await client.get("/health")).status_code == 200
        assert await server.stop() == 0


async def test_production_has_no_page(server: Server):
    for path in ("/", "/assets/index-Aa1.js", "/dev/users"):
        async with httpx2.AsyncClient(base_url=server.url, trust_env=False, timeout=20) as client:
            answer = await client.get(path)
        assert answer.status_code == 404, path
        assert answer.json()["code"] == "not_found"


async def test_make_says_that_node_is_missing_or_too_old(tmp_path: Path):
    """`make dev` goes on after that; `make page` alone fails."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "make", "find", "grep", "sed", "env", "touch", "git"):
        found = shutil.which(name)
        if found:
            (tools / name).symlink_to(found)
    for node in (None, "#!/bin/sh\nexit 1\n"):
        if node:
            (tools / "node").write_text(node)
            (tools / "node").chmod(0o755)
        done = await asyncio.to_thread(
            subprocess.run,
            ["make", "page"],
            cwd=ROOT,
            env={"PATH": str(tools), "HOME": os.environ.get("HOME", "/")},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert done.returncode != 0
        assert "Node 20.19 or newer" in done.stdout
