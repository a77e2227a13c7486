"""Where both topics of events begin and end, asked of Kafka."""

from __future__ import annotations

import contextlib
from types import TracebackType

from aiokafka.errors import KafkaError

from service.kafka.lag import EndOffsets
from service.reconcile.caught_up import Ends
from service.settings import Settings


class KafkaTopics:
    """`service.reconcile.caught_up.Topics`: it keeps its clients between questions, and replaces them after a fault."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._offsets: EndOffsets | None = None

    async def __aenter__(self) -> KafkaTopics:
        """Connect already, so that no run waits for it; where Kafka is away, the first question connects."""
        with contextlib.suppress(KafkaError, OSError):
            await self.read()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        offsets, self._offsets = self._offsets, None
        if offsets is not None:
            await offsets.__aexit__(kind, error, trace)

    async def read(self) -> Ends:
        """The high watermarks and the first offsets, on fresh metadata.

        Raises:
            KafkaError: Kafka does not answer.
        """
        try:
            if self._offsets is None:
                self._offsets = await EndOffsets(self._settings).__aenter__()
            return await _read(self._offsets)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise


async def _read(offsets: EndOffsets) -> Ends:
    """Offsets that lie between two equal answers about the topics' ids belong to these topics."""
    while True:
        cluster = await offsets.read_cluster()
        topic_ids = await offsets.read_topic_ids(cluster)
        ends = await offsets.read_of(cluster)
        starts = await offsets.read_starts(list(ends))
        if await offsets.read_topic_ids(cluster) == topic_ids:
            return Ends(
                cluster.id,
                {f"{tp.topic}-{tp.partition}": at for tp, at in starts.items()},
                {f"{tp.topic}-{tp.partition}": at for tp, at in ends.items()},
                topic_ids,
            )
