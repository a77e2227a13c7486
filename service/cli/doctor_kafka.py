"""`levelsync doctor`: is Kafka there, with the topics."""

from __future__ import annotations

import logging

from aiokafka.errors import KafkaError

from events import TOPICS
from service.cli import reach
from service.cli.findings import Finding, failed, passed, skipped, unreachable
from service.kafka.cluster import Cluster, describe_cluster
from service.kafka.rights import missing_rights
from service.kafka.topics import COMPACTED, compacted_topics, missing_topics
from service.settings import Settings

KAFKA_REACHABLE = "Kafka reachable"
TOPICS_THERE = "Topics"
RIGHTS = "Rights in Kafka"
POLICY = "Topics keep every event"


async def kafka_findings(settings: Settings) -> list[Finding]:
    """Check that Kafka answers and that every topic of the contract is there."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # the finding says it once
    try:
        cluster = await describe_cluster(settings)
    except (KafkaError, OSError) as error:
        sentence = str(await reach.kafka_trouble(settings, error))
        return [unreachable(KAFKA_REACHABLE, sentence), skipped(TOPICS_THERE, "Kafka does not answer")]
    brokers = f"{cluster.brokers} broker{'s' if cluster.brokers != 1 else ''}"
    found = f"{settings.kafka_bootstrap_servers}, cluster {cluster.id}, {brokers}"
    return [passed(KAFKA_REACHABLE, found), _topics(cluster), await _policy(settings, cluster), await _rights(settings)]


async def _rights(settings: Settings) -> Finding:
    try:
        missing = await missing_rights(settings)
    except (KafkaError, OSError) as error:
        return failed(RIGHTS, f"cannot be read: {error}")
    if missing is None:
        return passed(RIGHTS, "this broker has no rights to check")
    if missing:
        return failed(RIGHTS, f"the Kafka user has no {', '.join(missing)}", "Grant them: deploy/kafka/acls.sh")
    return passed(RIGHTS, "the Kafka user has every right that levelsync needs")


async def _policy(settings: Settings, cluster: Cluster) -> Finding:
    if missing_topics(cluster):
        return skipped(POLICY, "topics are missing")
    try:
        compacted, unread = await compacted_topics(settings)
    except (KafkaError, OSError) as error:
        return skipped(POLICY, f"not checked: {type(error).__name__}")
    if compacted:
        return failed(POLICY, f"compacted: {', '.join(compacted)}", COMPACTED)
    if unread:
        return skipped(POLICY, f"not checked, without the right DescribeConfigs: {', '.join(unread)}")
    return passed(POLICY, "no topic is compacted")


def _topics(cluster: Cluster) -> Finding:
    if missing := missing_topics(cluster):
        advice = "`levelsync serve` makes them, with LEVELSYNC_KAFKA_CREATE_TOPICS=true"
        return failed(TOPICS_THERE, f"missing: {', '.join(missing)}", advice)
    counts = ", ".join(f"{topic} ({cluster.partitions[topic]})" for topic in TOPICS)
    return passed(TOPICS_THERE, f"all there, with their partitions: {counts}")
