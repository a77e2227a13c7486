"""Structured logs on stderr: JSON lines, or readable ones on a console (LOG_FORMAT, LOG_LEVEL)."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from service.core.names import escape_controls, one_line
from service.settings import Settings

_QUIET = {
    "aiokafka": logging.CRITICAL,
    "alembic": logging.WARNING,
    "faststream": logging.ERROR,
    "uvicorn": logging.WARNING,
}
"""The least level at which these libraries log. Below it, they log every record or every reconnect."""


def configure_logs(settings: Settings) -> None:
    """Route structlog and the standard library's loggers through one format."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.log_level)),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    final: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderer(settings)]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=final))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    for name, level in _QUIET.items():
        library = logging.getLogger(name)
        library.handlers[:], library.propagate = [], True
        library.setLevel(level)


def _renderer(settings: Settings) -> list[Any]:
    if settings.log_format == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    # A plain traceback, because structlog's rich one prints local variables, and one may hold a token or a password.
    plain = structlog.dev.plain_traceback
    return [
        structlog.processors.format_exc_info,
        _escaped,
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain),
    ]


def _escaped(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape control characters in text, because a path or an error may contain anybody's text.

    Other values need no escaping: the console prints their `repr`.
    """
    for name, value in line.items():
        if isinstance(value, str):
            line[name] = escape_controls(value) if name == "exception" else one_line(value)
    return line
