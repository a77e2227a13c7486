"""Files for the browser that other projects publish: htmx, Tabler's stylesheet and Swagger UI.

`manifest.json` names each file's npm package, version, licence and SHA-256; a test compares them. Three frameworks that
carry these files would cost 25 MB in every image.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).with_name("vendor")


def read(name: str) -> bytes:
    """Return a vendored file's content.

    Raises:
        FileNotFoundError: there is no such file.
    """
    return FOLDER.joinpath(name).read_bytes()
