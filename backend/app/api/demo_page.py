"""`/`: the demo chat as Vite has built it, for a development server.

Read from the disk at each request, so that a page built while the server runs is there at the next reload.
In production `/` is nothing: the page signs in as anybody, by /dev/token.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request, Response
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

FOLDER: Final = Path(__file__).parents[3] / "frontend/demo/dist"
NOT_BUILT: Final = "not built: install Node 20.19 or newer, and run make dev again"

# What Vite writes is named after its content, the page that names it is not.
_FOR_EVER: Final = "public, max-age=31536000, immutable"
_ASK_EACH_TIME: Final = "no-cache"
# Trusted types: a defect that hands a message's text to the HTML parser throws instead of running it.
_POLICY: Final = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_APOLOGY: Final = f"""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Gapless</title>
<h1>Gapless is running</h1>
<p>The demo chat is {NOT_BUILT}.</p>
<p>The server needs no page: see <a href="docs">its API</a>.</p>
</html>
"""


def is_built() -> bool:
    """Whether there is a page to serve."""
    return (FOLDER / "index.html").is_file()


def install(api: FastAPI) -> None:
    """Serve the page and its files."""
    pages = StaticFiles(directory=FOLDER, check_dir=False)
    assets = StaticFiles(directory=FOLDER / "assets", check_dir=False)

    @api.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def get_page(request: Request) -> Response:
        if not is_built():
            return HTMLResponse(_APOLOGY, headers={"cache-control": "no-store"})
        response = await pages.get_response("index.html", request.scope)
        response.headers["cache-control"] = _ASK_EACH_TIME
        response.headers["content-security-policy"] = _POLICY
        return response

    @api.api_route("/assets/{name}", methods=["GET", "HEAD"], include_in_schema=False)
    async def get_asset(name: str, request: Request) -> Response:
        response = await assets.get_response(name, request.scope)
        response.headers["cache-control"] = _FOR_EVER
        return response
