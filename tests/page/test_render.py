"""Static files, words and pairs as the page renders them."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path

import pytest

from service.admin.pairs import PairRow, UserPair
from service.web import vendor
from service.web.page import render


def test_tablers_dark_rules_are_found_in_its_stylesheet() -> None:
    """It fails for a release of Tabler that writes them differently."""
    dark = render.contents()["tabler-dark.css"][0].decode()
    assert dark.startswith(":root{color-scheme:dark;")
    assert "--tblr-body-bg:" in dark
    assert ":root .form-select{" in dark
    assert "data-bs-theme" not in dark


def test_an_asset_changes_its_address_with_its_content() -> None:
    addresses = {name: render.url_of(name) for name in render.contents()}
    assert len(set(addresses.values())) == 5
    assert all(address.startswith(f"/page/assets/{name}?v=") for name, address in addresses.items())


MANIFEST = json.loads(vendor.read("manifest.json"))


def test_each_vendored_file_has_the_hash_that_the_manifest_names() -> None:
    assert {row["file"]: sha256(vendor.read(row["file"])).hexdigest() for row in MANIFEST} == {
        row["file"]: row["sha256"] for row in MANIFEST
    }


def test_the_manifest_names_every_vendored_file_with_version_and_licence() -> None:
    there = {path.name for path in Path(vendor.FOLDER).iterdir() if path.is_file()} - {"manifest.json", "__init__.py"}
    assert there == {"htmx.min.js", "tabler.min.css", "swagger-ui-bundle.js", "swagger-ui.css"}
    assert {row["file"] for row in MANIFEST} == there
    licences = {(row["npm_package"], row["licence"]) for row in MANIFEST}
    assert licences == {("htmx.org", "0BSD"), ("@tabler/core", "MIT"), ("swagger-ui-dist", "Apache-2.0")}
    assert all(len(vendor.read(row["licence_file"])) > 300 for row in MANIFEST)


def test_times_are_shown_in_utc() -> None:
    shown = "2026-11-23 01:30:00 UTC"
    assert render.moment(datetime(2026, 11, 23, 1, 30)) == shown  # noqa: DTZ001 - as the application keeps them
    assert render.moment(datetime(2026, 11, 23, 3, 30, tzinfo=timezone(timedelta(hours=2)))) == shown
    assert render.moment("2026-11-23T01:30:00+00:00") == shown
    assert render.moment(None) == "never"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.3, "less than a second ago"),
        (1, "1 second ago"),
        (119, "1 minute ago"),
        (7300, "2 hours ago"),
        (-65, "in 1 minute"),
    ],
)
def test_ages_are_in_their_largest_unit(seconds: float, said: str) -> None:
    assert render.age(datetime.now(UTC) - timedelta(seconds=seconds)) == said


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b'{"b":1,"a":"\xc3\xa9"}', '{\n  "b": 1,\n  "a": "\u00e9"\n}'),
        (b"{broken", "{broken"),
        (b"\xff\xfe<b>", "\\xff\\xfe<b>"),
        (b"[" * 100_000, "[" * 100_000),
        (None, "(none: a tombstone)"),
    ],
)
def test_any_bytes_can_be_shown(raw: bytes | None, shown: str) -> None:
    assert render.decoded(raw) == shown


def test_deeply_nested_json_is_not_indented() -> None:
    """64 KB of JSON would be 30 MB with indentation."""
    raw = b"[" * 400 + b"0," * 30_000 + b"0" + b"]" * 400
    assert render.decoded(raw) == raw.decode()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.25, "up to 250 ms"),
        (2.5, "up to 2.5 s"),
        (60, "up to 1 minute"),
        (43200, "up to 12 hours"),
        (math.inf, "above 12 hours"),
    ],
)
def test_a_bucket_of_delays_is_shown_by_its_bound(seconds: float, said: str) -> None:
    assert render.bound(seconds) == said


def row(level: int | None, name: str = "PLAYER") -> PairRow:
    return PairRow(name, level, None, None)


@pytest.mark.parametrize(
    ("pair", "state"),
    [
        (UserPair("PLAYER", 8, None, None), "absent"),
        (UserPair("PLAYER", 8, row(3), row(3)), "in_sync"),
        (UserPair("PLAYER", 8, row(3), row(2)), "mismatched"),
        (UserPair("PLAYER", 8, row(3), None), "missing_license"),
        (UserPair("PLAYER", 8, None, row(3)), "missing_progress"),
        (UserPair("PLAYER", 8, row(9), row(9)), "needs_decision"),
        (UserPair("PLAYER", 8, row(None), row(3)), "needs_decision"),
        (UserPair("PLAYER", 8, row(3), row(3, "player")), "wrong_case"),
        (UserPair("PLAYER", 8, row(3), row(3), (row(2, "player"),)), "duplicate"),
        (UserPair("GOALKEEPER", None, None, row(1, "GOALKEEPER")), "unknown_specialization"),
    ],
)
def test_every_kind_of_pair_has_its_name(pair: UserPair, state: str) -> None:
    assert pair.state == state


def test_a_pair_without_a_repair_offers_none() -> None:
    for pair in (UserPair("PLAYER", 8, row(9), row(3)), UserPair("GOALKEEPER", None, None, row(1, "GOALKEEPER"))):
        assert {pair.decide(direction).action.value for direction in ("progress_to_license", "highest")} == {"none"}
