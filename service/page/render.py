"""HTML responses: templates, escaped by default, and the headers that bind the browser."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

from service.page import assets, words

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""No inline script or style, no eval, nothing from elsewhere. Images: what Tabler's stylesheet holds in itself."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class _Html(HTMLResponse):
    """A page that can always be sent: what UTF-8 cannot hold, as a lone surrogate from JSON, is shown escaped."""

    def render(self, content: str) -> bytes:
        """Encode it."""
        return content.encode("utf-8", "backslashreplace")


def _environment() -> Environment:
    loader = FileSystemLoader(Path(__file__).with_name("templates"))
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.globals |= {"asset": assets.url_of}
    filters = (words.moment, words.machine, words.age, words.duration, words.number, words.level, words.spaced)
    made.filters |= {function.__name__: function for function in (*filters, words.decoded, words.counted, words.bound)}
    return made


_templates = _environment()


def fragment(template: str, **context: Any) -> Markup:
    """Render a template that is a part of pages."""
    return Markup(_templates.get_template(template).render(context))  # noqa: S704 - the template escapes


def render(
    template: str, context: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> HTMLResponse:
    """A template with its values, as a response."""
    html = _templates.get_template(template).render(context)
    return _Html(html, status, {**HEADERS, **(headers or {})})
