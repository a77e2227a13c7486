"""Where partitions of the embedded broker end: it says one record behind the *first* of its last batch (measured)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaTimeoutError

_SECONDS = 10.0
_POLL_MS = 100


async def ends_by_fetching(client: AIOKafkaConsumer, told: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    """The high watermarks that come with the last batch itself: those are right.

    Raises:
        KafkaTimeoutError: the broker did not give them within ten seconds.
    """
    ends = dict(told)
    missing = {partition for partition, end in told.items() if end > 0}
    if not missing:
        return ends
    client.assign(list(missing))
    for partition in missing:
        client.seek(partition, told[partition] - 1)
    try:
        async with asyncio.timeout(_SECONDS):
            while missing:
                await client.getmany(timeout_ms=_POLL_MS)
                known = {p: end for p in missing if (end := client.highwater(p)) is not None}
                ends |= known
                missing -= known.keys()
    except TimeoutError as error:
        raise KafkaTimeoutError from error
    finally:
        client.unsubscribe()
    return ends
