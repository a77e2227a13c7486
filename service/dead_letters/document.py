"""A dead letter as JSON has it, the same for the command and the API."""

from __future__ import annotations

import base64
import dataclasses
from typing import Any

from service.dead_letters.values import MEANINGS, Letter


def as_document(letter: Letter) -> dict[str, Any]:
    """Give key and value as text, or, where they are none, null and as base64 beside it."""
    document = dataclasses.asdict(letter)
    for name in ("key", "value"):
        content = document.pop(name)
        text = as_text(content)
        document[name] = text
        document[f"{name}_base64"] = (
            base64.b64encode(content).decode() if content is not None and text is None else None
        )
    return document | {"meaning": MEANINGS.get(letter.reason, letter.reason)}


def as_text(content: bytes | None) -> str | None:
    """Give the bytes as text that a terminal can take, else None."""
    try:
        text = content.decode() if content is not None else None
    except UnicodeDecodeError:
        return None
    printable = text is not None and all(char.isprintable() or char in "\n\r\t" for char in text)
    return text if printable else None
