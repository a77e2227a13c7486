"""Private names of aiokafka that the service changes or reads. A test fails when a release moves one."""

from __future__ import annotations

import ast
import inspect
import re
from importlib.metadata import version

import aiokafka.client
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.producer.sender import Sender

from tests.support.repository import ROOT

METHODS = [
    *((Fetcher, name) for name in ("_proc_fetch_request", "_set_error", "_get_actions_per_node")),
    *((AIOKafkaClient, name) for name in ("_get_conn", "bootstrap")),
    *((GroupCoordinator, "_coordination_routine"), (AIOKafkaConnection, "send"), (Sender, "close")),
    (aiokafka.client, "create_conn"),
]
ATTRIBUTES = [
    *((GroupCoordinator, f"_{name}_task") for name in ("heartbeat", "commit_refresh", "coordination")),
    *((AIOKafkaConnection, name) for name in ("_versions", "_writer")),
    *((AIOKafkaProducer, name) for name in ("_closed", "_sender")),
    *((AIOKafkaClient, "_conns"), (AIOKafkaConsumer, "_fetcher")),
]


def test_the_bounds_in_pyproject_hold_for_what_is_installed() -> None:
    """For a new minor release, run this file, then raise the bound."""
    assert version("aiokafka").startswith("0.14.")
    assert version("faststream").startswith("0.7.")


@pytest.mark.parametrize(("owner", "name"), METHODS, ids=lambda one: getattr(one, "__name__", one))
def test_a_method_that_we_override_or_call_is_there(owner: type, name: str) -> None:
    """Otherwise an override would never be called, without an error."""
    assert callable(getattr(owner, name, None))


@pytest.mark.parametrize(("owner", "name"), ATTRIBUTES, ids=lambda one: getattr(one, "__name__", one))
def test_an_attribute_that_we_read_is_set_by_its_class(owner: type, name: str) -> None:
    """Attributes are set at run time, so the test reads the source."""
    tree = ast.parse(inspect.getsource(inspect.getmodule(owner)))  # type: ignore[arg-type]
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    assert name in {node.attr for node in attributes if isinstance(node.ctx, ast.Store)}


OTHERS = {"_client", "_commit", "_consumer", "_epoch", "_idle", "_isolation_level", "_max_bytes", "_max_wait_ms"}
OTHERS |= {"_min_bytes", "_read_msg", "_closing", "_subscription"}
"""Fields of requests that we rebuild, and private names that classes of one module share."""
_PRIVATE = re.compile(r"\w\._([a-z]\w+)")


def test_no_private_name_of_a_library_is_used_beyond_these() -> None:
    """Uses are marked with SLF001. Add a new one to the lists above."""
    lines = [
        line.partition("#")[0]
        for path in (ROOT / "service" / "stream").glob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "noqa: SLF001" in line
    ]
    assert lines
    used = {f"_{name}" for line in lines for name in _PRIVATE.findall(line) if f"self._{name}" not in line}
    assert used - {name for _, name in METHODS + ATTRIBUTES} - OTHERS == set()
