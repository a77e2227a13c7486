"""A replacement for Kafka's command-line tools, which are not among the jars. It accepts the same options.

`python kafka_tools.py kafka-acls.sh --bootstrap-server …`; `installed` creates all of them in a folder for the PATH.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest, DeleteGroupsRequest

_OPERATIONS = {"Read": 3, "Write": 4, "DescribeConfigs": 10}
_TOPIC, _GROUP, _ALLOW = 2, 3, 3
_PATTERNS = {"literal": 3, "prefixed": 4}


def installed(folder: Path) -> Path:
    """Create every tool in a folder, under Kafka's names; returns the folder."""
    folder.mkdir()
    for name in TOOLS:
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {name} "$@"\n', encoding="utf-8")
        (folder / name).chmod(0o755)
    return folder


async def _acls(words: list[str]) -> None:
    parser = _parser()
    parser.add_argument("--add", action="store_true", required=True)
    parser.add_argument("--allow-principal", required=True)
    parser.add_argument("--operation", action="append", choices=_OPERATIONS, required=True)
    parser.add_argument("--topic", action="append", default=[])
    parser.add_argument("--group", action="append", default=[])
    parser.add_argument("--resource-pattern-type", choices=_PATTERNS, default="literal")
    given = parser.parse_args(words)
    async with admin(given.bootstrap_server) as client:
        for kind, names in ((_TOPIC, given.topic), (_GROUP, given.group)):
            for name in names:
                for operation in given.operation:
                    pattern = _PATTERNS[given.resource_pattern_type]
                    rule = (kind, name, pattern, given.allow_principal, "*", _OPERATIONS[operation], _ALLOW)
                    answer = await client._send_request_to_node(
                        client._client.get_random_node(), CreateAclsRequest(*rule)
                    )
                    assert not answer.creation_responses[0][0], answer


async def _topics(words: list[str]) -> None:
    parser = _parser()
    parser.add_argument("--delete", action="store_true", required=True)
    parser.add_argument("--topic", required=True)
    given = parser.parse_args(words)
    async with admin(given.bootstrap_server) as client:
        named = [name for name in await client.list_topics() if re.fullmatch(given.topic, name)]
        assert named, "Kafka's tool fails too where no topic has such a name"
        await client.delete_topics(named)


async def _consumer_groups(words: list[str]) -> None:
    parser = _parser()
    parser.add_argument("--group", action="append", required=True)
    for flag in ("--reset-offsets", "--to-earliest", "--all-topics", "--execute", "--delete"):
        parser.add_argument(flag, action="store_true")
    given = parser.parse_args(words)
    if given.delete:
        async with admin(given.bootstrap_server) as client:
            for answer in await delete_groups(client, given.group):
                assert not answer.results[0][1], answer
    else:
        assert given.reset_offsets and given.to_earliest and given.all_topics and given.execute, words  # noqa: PT018 - one form
        for group in given.group:
            await _reset_to_earliest(given.bootstrap_server, group)


async def delete_groups(client: AIOKafkaAdminClient, groups: list[str]) -> list[Any]:
    """Delete consumer groups; returns the broker's answers. aiokafka has no method for this request."""
    answers = []
    for group in groups:
        node = await client.find_coordinator(group)
        answers.append(await client._send_request_to_node(node, DeleteGroupsRequest([group])))
    return answers


async def _reset_to_earliest(bootstrap_servers: str, group: str) -> None:
    async with admin(bootstrap_servers) as client:
        partitions: list[TopicPartition] = list(await client.list_consumer_group_offsets(group))
    async with AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers, group_id=group, enable_auto_commit=False
    ) as consumer:
        consumer.assign(partitions)
        await consumer.commit(await consumer.beginning_offsets(partitions))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap-server", required=True)
    return parser


@asynccontextmanager
async def admin(bootstrap_servers: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=15_000)
    try:
        await client.start()
        yield client
    finally:
        await client.close()


TOOLS = {"kafka-acls.sh": _acls, "kafka-topics.sh": _topics, "kafka-consumer-groups.sh": _consumer_groups}

if __name__ == "__main__":
    asyncio.run(TOOLS[sys.argv[1]](sys.argv[2:]))
