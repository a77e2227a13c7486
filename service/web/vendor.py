"""Files for the browser that other projects publish: htmx, Tabler's stylesheet and Swagger UI.

`manifest.json` names each file's npm package, version, licence and SHA-256, which a test checks. Python packages that
contain these files would add 25 MB to every image.
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
