"""What the browser loads beside the HTML: our stylesheet and vendored files, never anything from elsewhere."""

from __future__ import annotations

import re
from functools import cache
from hashlib import sha256
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service import vendor

_DARK = re.compile(r"\[data-bs-theme=dark\]((?: [^{},]+)?),body\[data-bs-theme=dark\][^{},]*\{([^{}]*)\}")
"""A rule of Tabler for dark mode, which it switches by an attribute that only a script could set."""


@cache
def contents() -> dict[str, tuple[bytes, str]]:
    """Every asset by its name, with its media type."""
    tabler = vendor.read("tabler.min.css")
    return {
        "tabler.css": (tabler, "text/css"),
        "tabler-dark.css": (_dark_rules(tabler.decode()).encode(), "text/css"),
        "page.css": (Path(__file__).with_name("static").joinpath("page.css").read_bytes(), "text/css"),
        "htmx.js": (vendor.read("htmx.min.js"), "text/javascript"),
    }


def url_of(name: str) -> str:
    """The asset's address; it changes with the content, so that the browser may keep it."""
    return f"/page/assets/{name}?v={sha256(contents()[name][0]).hexdigest()[:12]}"


async def asset(request: Request) -> Response:
    """Serve one."""
    name = request.path_params["name"]
    if name not in contents():
        raise HTTPException(404)
    content, media_type = contents()[name]
    return Response(content, media_type=media_type, headers={"Cache-Control": "public, max-age=31536000, immutable"})


def _dark_rules(css: str) -> str:
    """Tabler's rules for dark mode, for a stylesheet that the browser loads where its user prefers dark."""
    rules = _DARK.findall(css)
    if not rules:
        raise LookupError("Tabler's stylesheet has no dark mode where it is looked for")
    return "".join(f":root{selector}{{{declarations}}}" for selector, declarations in rules)
