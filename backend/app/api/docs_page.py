"""`/docs`: Swagger UI out of a wheel, for a development server. No CDN, no inline script.

Not in production: the document is in the repository, and a page that sends requests with a pasted token
is one more page to defend.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from fastapi import FastAPI, Response
from starlette.responses import FileResponse, HTMLResponse

from app.errors import NotFoundError

# By name, never by path: what else the wheel holds is not served.
_FILES: Final = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Gapless API</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START: Final = """\
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: true,
  validatorUrl: null, // it would send the document to a site of others
});
"""
# The style sheet draws its arrows as data: images; React sets styles through the CSSOM, which needs no more.
_POLICY: Final = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def install(api: FastAPI) -> None:
    """Serve the page and its files."""
    folder = _folder()

    @api.get("/docs", include_in_schema=False)
    async def get_page() -> Response:
        if folder is None:
            raise NotFoundError("Swagger UI is not installed: it comes with the extra `embedded`. See /openapi.json.")
        return HTMLResponse(_PAGE, headers={"content-security-policy": _POLICY})

    @api.get("/docs/{name}", include_in_schema=False)
    async def get_file(name: str) -> Response:
        if name == "start.js":
            return Response(_START, media_type="text/javascript")
        if folder is None or name not in _FILES:
            raise NotFoundError
        return FileResponse(folder / name, media_type=_FILES[name], headers={"cache-control": "max-age=3600"})


def _folder() -> Path | None:
    spec = find_spec("swagger_ui_bundle")
    for place in (spec and spec.submodule_search_locations) or ():
        # The version is in the folder's name.
        found = sorted(Path(place, "vendor").glob("swagger-ui-*"))
        if found:
            return found[-1]
    return None
