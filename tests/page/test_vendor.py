"""What is vendored is what its publisher released."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

from service.web import vendor

MANIFEST = json.loads(vendor.read("manifest.json"))


def test_each_vendored_file_has_the_hash_that_the_manifest_names() -> None:
    """An edit of a vendored file, or a new version without its row, fails here."""
    assert {row["file"]: sha256(vendor.read(row["file"])).hexdigest() for row in MANIFEST} == {
        row["file"]: row["sha256"] for row in MANIFEST
    }


def test_the_manifest_names_every_vendored_file_with_version_and_licence() -> None:
    """Nothing comes along without a row."""
    there = {path.name for path in Path(vendor.FOLDER).iterdir() if path.is_file()} - {"manifest.json", "__init__.py"}
    assert there == {"htmx.min.js", "tabler.min.css", "swagger-ui-bundle.js", "swagger-ui.css"}
    assert {row["file"] for row in MANIFEST} == there
    assert {(row["npm_package"], row["licence"]) for row in MANIFEST} == {
        ("htmx.org", "0BSD"),
        ("@tabler/core", "MIT"),
        ("swagger-ui-dist", "Apache-2.0"),
    }
    assert all(len(vendor.read(row["licence_file"])) > 300 for row in MANIFEST)
