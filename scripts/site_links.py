"""Hooks for mkdocs: the README becomes the first page, and a link to a file outside docs/ becomes the file name."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the README as index.md, with links relative to docs/."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    seen = _LINK.sub(lambda match: f"[{match[1]}]({_from_docs(match[2])})", readme)
    files.append(File.generated(config, "index.md", content=seen))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Keep links inside docs/, and replace links out of docs/ by the file name."""
    folder = posixpath.dirname(page.file.src_uri)

    def inside(match: re.Match[str]) -> str:
        path = match[2].partition("#")[0]
        if "://" in path or not path or not posixpath.normpath(posixpath.join(folder, path)).startswith(".."):
            return match[0]
        return f"{match[1]} (`{posixpath.normpath(posixpath.join('docs', folder, path))}`)"

    return _LINK.sub(inside, markdown)


def _from_docs(link: str) -> str:
    if "://" in link or link.startswith("#"):
        return link
    return link.removeprefix("docs/") if link.startswith("docs/") else f"../{link}"
