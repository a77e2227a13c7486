"""Two requests of Kafka's protocol that aiokafka 0.14 does not have: the ids of topics, and a fetch by topic id.

A fetch by id returns only records of that topic, even if another topic was created with its name. It also contains the
leader epoch of the last record that was read. If the log was truncated after that, the broker returns where it ends.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import NodeNotReadyError, UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactBytes,
    CompactString,
    Int8,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

_FETCH, _METADATA = 1, 3
_FETCH_BY_ID = 13
"""The first version of Fetch with topic ids, in Kafka 3.1 and newer."""
_NO_ID = bytes(16)
_TAGS = ("tags", TaggedFields)
_NO_TAGS: dict[int, bytes] = {}
_DIVERGING_EPOCH = 0


class Uuid(AbstractType):  # type: ignore[misc]  # aiokafka ships no types
    """A topic id, as the text that Kafka's tools print, or '' for none."""

    @classmethod
    def encode(cls, value: str) -> bytes:
        """Return the 16 bytes of an id."""
        return base64.urlsafe_b64decode(value + "==") if value else _NO_ID

    @classmethod
    def decode(cls, data: BytesIO) -> str:
        """Return the id in the next 16 bytes."""
        raw = data.read(16)
        return "" if raw == _NO_ID else base64.urlsafe_b64encode(raw).decode().rstrip("=")


class _MetadataResponse(Response):  # type: ignore[misc]  # as above
    API_KEY = _METADATA
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(("node", Int32), ("host", CompactString()), ("port", Int32), ("rack", CompactString()), _TAGS),
        ),
        ("cluster_id", CompactString()),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", CompactString()),
                ("topic_id", Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        _TAGS,
                    ),
                ),
                ("authorized_operations", Int32),
                _TAGS,
            ),
        ),
        ("authorized_operations", Int32),
        _TAGS,
    )


class _MetadataRequest(RequestStruct):  # type: ignore[misc]  # as above
    FLEXIBLE_VERSION = True
    API_KEY = _METADATA
    API_VERSION = 10
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", Uuid), ("topic", CompactString()), _TAGS)),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        _TAGS,
    )


class _Topics(Request[_MetadataRequest]):  # type: ignore[misc]  # as above
    """Requests topics by name, and the operations that this client may do with them. It creates no topics."""

    API_KEY = _METADATA

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_MetadataRequest]) -> _MetadataRequest:
        topics = [("", topic, _NO_TAGS) for topic in self._topics]
        create, with_cluster_rights, with_topic_rights = False, False, True
        return request_struct_class(topics, create, with_cluster_rights, with_topic_rights, _NO_TAGS)


class _FetchResponse(Response):  # type: ignore[misc]  # as above
    API_KEY = _FETCH
    API_VERSION = _FETCH_BY_ID
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("session_id", Int32),
        (
            "topics",
            CompactArray(
                ("topic_id", Uuid),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("error_code", Int16),
                        ("high_watermark", Int64),
                        ("last_stable_offset", Int64),
                        ("log_start_offset", Int64),
                        ("aborted", CompactArray(("producer_id", Int64), ("first_offset", Int64), _TAGS)),
                        ("preferred_read_replica", Int32),
                        ("records", CompactBytes),
                        _TAGS,
                    ),
                ),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class _FetchRequest(RequestStruct):  # type: ignore[misc]  # as above
    FLEXIBLE_VERSION = True
    API_KEY = _FETCH
    API_VERSION = _FETCH_BY_ID
    RESPONSE_TYPE = _FetchResponse
    SCHEMA = Schema(
        ("replica_id", Int32),
        ("max_wait_ms", Int32),
        ("min_bytes", Int32),
        ("max_bytes", Int32),
        ("isolation_level", Int8),
        ("session_id", Int32),
        ("session_epoch", Int32),
        (
            "topics",
            CompactArray(
                ("topic_id", Uuid),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("current_leader_epoch", Int32),
                        ("offset", Int64),
                        ("last_fetched_epoch", Int32),
                        ("log_start_offset", Int64),
                        ("max_bytes", Int32),
                        _TAGS,
                    ),
                ),
                _TAGS,
            ),
        ),
        ("forgotten_topics", CompactArray(("topic_id", Uuid), ("partitions", CompactArray(Int32)), _TAGS)),
        ("rack_id", CompactString()),
        _TAGS,
    )


@dataclass(frozen=True, slots=True)
class Fetched:
    """The answer for one partition. `truncated_at` is the end of a log truncated below the position, or None."""

    partition: TopicPartition
    offset: int
    error_code: int
    high_watermark: int
    last_stable_offset: int | None
    aborted: Sequence[tuple[int, int]] | None
    records: bytes
    truncated_at: int | None = None


class FetchById:
    """A fetch by topic id if the broker supports it and every id is known, otherwise aiokafka's fetch by name."""

    def __init__(self, plain: FetchRequest, topic_ids: Mapping[str, str], epochs: Mapping[TopicPartition, int]) -> None:
        self._plain = plain
        self._ids = {topic: topic_ids.get(topic, "") for topic, _ in plain.topics}
        self._epochs = epochs

    def prepare(self, versions: Mapping[int, tuple[int, int]]) -> RequestStruct:
        """Return the request in a version that the broker supports."""
        if versions.get(_FETCH, (0, 0))[1] < _FETCH_BY_ID or not all(self._ids.values()):
            return self._plain.prepare(versions)
        plain, none = self._plain, -1
        topics = [
            (self._ids[topic], [self._partition(topic, *partition) for partition in partitions], _NO_TAGS)
            for topic, partitions in plain.topics
        ]
        bounds = (plain._max_wait_ms, plain._min_bytes, plain._max_bytes, plain._isolation_level)  # noqa: SLF001
        return _FetchRequest(none, *bounds, 0, none, topics, [], "", _NO_TAGS)

    def _partition(self, topic: str, partition: int, offset: int, max_bytes: int) -> tuple[Any, ...]:
        none, epoch = -1, self._epochs.get(TopicPartition(topic, partition), -1)
        return (partition, none, offset, epoch, none, max_bytes, _NO_TAGS)

    def read(self, response: Response) -> list[Fetched]:
        """Return the answer for each requested partition."""
        asked = {TopicPartition(topic, p): offset for topic, parts in self._plain.topics for p, offset, _ in parts}
        if response.API_VERSION < _FETCH_BY_ID:
            found = [(TopicPartition(topic, row[0]), row) for topic, rows in response.topics for row in rows]
            return [_by_name(partition, asked[partition], row, response.API_VERSION) for partition, row in found]
        names = {topic_id: topic for topic, topic_id in self._ids.items()}
        found = [(TopicPartition(names[topic], row[0]), row) for topic, rows, _ in response.topics for row in rows]
        return [_by_id(partition, asked[partition], row) for partition, row in found]


def _by_id(partition: TopicPartition, offset: int, row: tuple[Any, ...]) -> Fetched:
    _, error, high, stable, _, aborted, _, records, tags = row
    pairs = [(producer, first) for producer, first, _ in aborted or ()]
    diverging = tags.get(_DIVERGING_EPOCH)
    truncated_at = None if diverging is None else Int64.decode(BytesIO(diverging[4:12]))
    return Fetched(partition, offset, error, high, stable, pairs, records or b"", truncated_at)


def _by_name(partition: TopicPartition, offset: int, row: tuple[Any, ...], version: int) -> Fetched:
    """Read a partition of aiokafka's response.

    Version 4 added the stable offset and the aborted transactions, and version 11 moved the latter.
    """
    _, error, high, *more = row
    stable = more[0] if version >= 4 else None  # noqa: PLR2004 - see the docstring
    aborted = None if stable is None else more[2] if version >= 11 else more[-2]  # noqa: PLR2004 - as above
    return Fetched(partition, offset, error, high, stable, aborted, more[-1] or b"")


async def read_topic_ids(client: AIOKafkaClient, topics: Sequence[str]) -> dict[str, str]:
    """Return the id of each topic, or '' if the broker cannot fetch by id (before Kafka 3.1, and the embedded one).

    Raises:
        UnknownTopicOrPartitionError: A topic does not exist at present.
        KafkaError: Kafka does not answer, or refuses the request.
    """
    node, versions = await _any_node(client)
    too_old = versions.get(_FETCH, (0, 0))[1] < _FETCH_BY_ID
    if too_old or versions.get(_METADATA, (0, 0))[1] < _MetadataRequest.API_VERSION:
        return dict.fromkeys(topics, "")
    answer = await client.send(node, _Topics(sorted(topics)))
    found = {}
    for error_code, topic, topic_id, *_ in answer.topics:
        if error_code:
            raise for_code(error_code)(topic)
        found[topic] = topic_id
    if missing := set(topics) - found.keys():
        raise UnknownTopicOrPartitionError(", ".join(sorted(missing)))
    return found


_NO_RIGHTS_KNOWN = frozenset({0, -(2**31)})
"""The values that brokers without rights return. A client that may see a topic has at least Describe."""


async def read_topic_rights(client: AIOKafkaClient, topics: Sequence[str]) -> dict[str, int] | None:
    """Return the operations that this client may do with each existing topic, as bits by their numbers in Kafka's ACLs.

    Return None if the broker cannot report them (before Kafka 2.8, and the embedded one).

    Raises:
        KafkaError: Kafka does not answer, or refuses the request.
    """
    node, versions = await _any_node(client)
    if versions.get(_METADATA, (0, 0))[1] < _MetadataRequest.API_VERSION:
        return None
    answer = await client.send(node, _Topics(sorted(topics)))
    answers = {topic: (error_code, rights) for error_code, topic, *_, rights, _tags in answer.topics}
    if answers and all(error_code == 0 and rights in _NO_RIGHTS_KNOWN for error_code, rights in answers.values()):
        return None
    unknown = UnknownTopicOrPartitionError.errno
    return {topic: 0 if code else rights for topic, (code, rights) in answers.items() if code != unknown}


async def _any_node(client: AIOKafkaClient) -> tuple[int, Mapping[int, tuple[int, int]]]:
    """Return a connected broker, and the versions that it supports of each request.

    Raises:
        NodeNotReadyError: No broker can be reached.
    """
    node = client.get_random_node()
    connection: AIOKafkaConnection | None = None if node is None else await client._get_conn(node)  # noqa: SLF001
    if node is None or connection is None:
        raise NodeNotReadyError("no broker answers")
    versions: Mapping[int, tuple[int, int]] = connection._versions  # noqa: SLF001 - aiokafka has no public access to it
    return node, versions
