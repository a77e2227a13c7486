"""Where both topics of events begin and end, asked of Kafka."""

from __future__ import annotations

from service.kafka.cluster import admin_client, read_cluster
from service.kafka.lag import EndOffsets
from service.reconcile.caught_up import Ends
from service.settings import Settings


class KafkaTopics:
    """`service.reconcile.caught_up.Topics` over clients that live for one question: it is asked a few times a run."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def read(self) -> Ends:
        """The high watermarks and the first offsets, on fresh metadata.

        Raises:
            KafkaError: Kafka does not answer.
        """
        async with admin_client(self._settings) as admin:
            cluster_id = (await read_cluster(admin)).id
        async with EndOffsets(self._settings) as offsets:
            ends = await offsets.read()
            starts = await offsets.read_starts(list(ends))
        return Ends(
            cluster_id,
            {f"{tp.topic}-{tp.partition}": at for tp, at in starts.items()},
            {f"{tp.topic}-{tp.partition}": at for tp, at in ends.items()},
        )
