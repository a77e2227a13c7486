"""Rendering of templates, the formats that they use, and the static files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from service.core.names import counted, escape_controls
from service.telemetry import metrics
from service.web import vendor

_DARK = re.compile(r"\[data-bs-theme=dark\]((?: [^{},]+)?),body\[data-bs-theme=dark\][^{},]*\{([^{}]*)\}")
"""A rule of Tabler's dark mode. Tabler applies it by an attribute that only a script could set."""


@cache
def contents() -> dict[str, tuple[bytes, str]]:
    """Return each asset with its media type, by name."""
    tabler = vendor.read("tabler.min.css")
    static = Path(__file__).with_name("static")
    return {
        "tabler.css": (tabler, "text/css"),
        "tabler-dark.css": (_dark_rules(tabler.decode()).encode(), "text/css"),
        "page.css": ((static / "page.css").read_bytes(), "text/css"),
        "page.js": ((static / "page.js").read_bytes(), "text/javascript"),
        "htmx.js": (vendor.read("htmx.min.js"), "text/javascript"),
    }


def url_of(name: str) -> str:
    """Return the asset's URL. It changes with the content, so that the browser may cache the asset."""
    return f"/page/assets/{name}?v={sha256(contents()[name][0]).hexdigest()[:12]}"


async def asset(request: Request) -> Response:
    """Serve an asset."""
    name = request.path_params["name"]
    if name not in contents():
        raise HTTPException(404)
    content, media_type = contents()[name]
    return Response(content, media_type=media_type, headers={"Cache-Control": "public, max-age=31536000, immutable"})


def _dark_rules(css: str) -> str:
    """Return Tabler's rules for dark mode as a stylesheet that a media query can select."""
    rules = _DARK.findall(css)
    if not rules:
        raise LookupError("Tabler's stylesheet has no rules for dark mode in the expected form")
    return "".join(f":root{selector}{{{declarations}}}" for selector, declarations in rules)


_MAX_INDENTED = 4096
"""Bytes of JSON. With deep nesting, 64 KB become 30 MB of spaces. Events of the contract are much shorter."""
_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def moment(value: datetime | str | None) -> str:
    """Return a time in UTC, to the second. A time without a zone is the application's, which stores UTC."""
    found = _time(value)
    return "never" if found is None else f"{found:%Y-%m-%d %H:%M:%S} UTC"


def machine(value: datetime | str | None) -> str:
    """Return a time for the attribute of `<time>`."""
    found = _time(value)
    return "" if found is None else found.isoformat()


def age(value: datetime | str | None) -> str:
    """Return how long ago a time was, or how far away it is."""
    found = _time(value)
    if found is None:
        return ""
    seconds = (datetime.now(UTC) - found).total_seconds()
    return f"{duration(seconds)} ago" if seconds >= 0 else f"in {duration(-seconds)}"


def duration(seconds: float) -> str:
    """Return a length of time in the largest unit that fits."""
    for size, name in _UNITS:
        number = int(seconds // size)
        if number:
            return counted(number, name)
    return "less than a second"


def bound(seconds: float) -> str:
    """Return the bound of a histogram's bucket as text. The last bucket is infinite."""
    if math.isinf(seconds):
        return f"above {duration(metrics.LONGEST_DELAY)}"
    if seconds < 1:
        return f"up to {seconds * 1000:g} ms"
    return f"up to {seconds:g} s" if seconds < 60 else f"up to {duration(seconds)}"  # noqa: PLR2004 - a minute


def number(value: float | None) -> str:
    """Return a number with separated thousands."""
    return "-" if value is None else f"{value:,}"


def level(value: int | None) -> str:
    """Return a level; a dash where there is none."""
    return "-" if value is None else str(value)


def spaced(name: str) -> str:
    """Return a fixed name as words: "missing license" for `missing_license`."""
    return name.replace("_", " ")


def decoded(raw: bytes | None) -> str:
    """Return bytes as text: JSON is indented, and bytes that are not text are escaped."""
    if raw is None:
        return "(none: a tombstone)"
    shown = raw.decode("utf-8", "backslashreplace")
    if len(raw) > _MAX_INDENTED:
        return shown
    try:
        return json.dumps(json.loads(shown), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return shown


def _time(value: Any) -> datetime | None:
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    if found is None:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""No inline script or style, no eval, and nothing from other hosts. The images are those in Tabler's stylesheet."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class _Html(HTMLResponse):
    """An HTML response that escapes what UTF-8 cannot encode, for example a lone surrogate from JSON."""

    def render(self, content: str) -> bytes:
        """Encode the page."""
        return content.encode("utf-8", "backslashreplace")


def _visible(value: Any) -> Any:
    """Escape characters that are invisible or change the direction of text. Markup is this page's and stays."""
    return escape_controls(value) if type(value) is str else value


def _environment() -> Environment:
    loader = FileSystemLoader(Path(__file__).with_name("templates"))
    made = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    made.globals |= {"asset": url_of}
    filters = (moment, machine, age, duration, number, level, spaced)
    made.filters |= {function.__name__: function for function in (*filters, decoded, counted, bound)}
    return made


_templates = _environment()


def fragment(template: str, **context: Any) -> Markup:
    """Render a template that is a part of a page."""
    return Markup(_templates.get_template(template).render(context))  # noqa: S704 - the template escapes


def render(
    template: str, context: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> HTMLResponse:
    """Return a template with its values as a response."""
    html = _templates.get_template(template).render(context)
    return _Html(html, status, {**HEADERS, **(headers or {})})
