"""Publish one ProgressLeveledUp and one LicenseAdvanced with aiokafka.

    pip install levelsync aiokafka
    python examples/publish_with_aiokafka.py [localhost:9092]

Without an argument, the script connects to the brokers in LEVELSYNC_KAFKA_BOOTSTRAP_SERVERS. If the process dies before
it publishes, the event is lost. examples/application_hooks.py shows how to write an event in the transaction of its
level.
"""

from __future__ import annotations

import argparse
import asyncio
import os

from aiokafka import AIOKafkaProducer

from events import Event, LicenseAdvanced, ProgressLeveledUp


async def publish(producer: AIOKafkaProducer, event: Event) -> str:
    """Send one event, wait until every in-sync replica has stored it, and return where it is."""
    topic, key, value, headers = event.to_kafka()
    metadata = await producer.send_and_wait(topic, key=key, value=value, headers=headers)
    return f"{event.TYPE} {event.id} is in {metadata.topic}, partition {metadata.partition}, offset {metadata.offset}"


async def main(bootstrap_servers: str) -> None:
    """Publish the two events for user 42."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks="all") as producer:
        leveled_up = ProgressLeveledUp(
            user_id=42, specialization="PLAYER", from_level=4, to_level=5, source="/app/progress"
        )
        advanced = LicenseAdvanced(
            user_id=42,
            specialization="COACH",
            from_level=3,
            to_level=4,
            advanced_by=2,
            reason="Practical exam passed",
            source="/app/licenses",
        )
        for event in (leveled_up, advanced):
            print(await publish(producer, event))


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="Publish one ProgressLeveledUp and one LicenseAdvanced.")
    arguments.add_argument(
        "bootstrap_servers",
        nargs="?",
        default=os.environ.get("LEVELSYNC_KAFKA_BOOTSTRAP_SERVERS", "localhost:9092"),
        help="host:port, several separated by commas",
    )
    asyncio.run(main(arguments.parse_args().bootstrap_servers))
