"""Stands for kafka-acls.sh, which is not among the jars: the same options, sent to the broker by aiokafka."""

from __future__ import annotations

import argparse
import asyncio

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest

_OPERATIONS = {"Read": 3, "Write": 4, "DescribeConfigs": 10}
_TOPIC, _GROUP, _ALLOW = 2, 3, 3
_PATTERNS = {"literal": 3, "prefixed": 4}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap-server", required=True)
    parser.add_argument("--add", action="store_true", required=True)
    parser.add_argument("--allow-principal", required=True)
    parser.add_argument("--operation", action="append", choices=_OPERATIONS, required=True)
    parser.add_argument("--topic", action="append", default=[])
    parser.add_argument("--group", action="append", default=[])
    parser.add_argument("--resource-pattern-type", choices=_PATTERNS, default="literal")
    return parser.parse_args()


async def _main(given: argparse.Namespace) -> None:
    client = AIOKafkaAdminClient(bootstrap_servers=given.bootstrap_server)
    await client.start()
    try:
        for kind, names in ((_TOPIC, given.topic), (_GROUP, given.group)):
            for name in names:
                for operation in given.operation:
                    pattern = _PATTERNS[given.resource_pattern_type]
                    rule = (kind, name, pattern, given.allow_principal, "*", _OPERATIONS[operation], _ALLOW)
                    answer = await client._send_request_to_node(
                        client._client.get_random_node(), CreateAclsRequest(*rule)
                    )
                    assert not answer.creation_responses[0][0], answer
    finally:
        await client.close()


if __name__ == "__main__":
    asyncio.run(_main(_arguments()))
