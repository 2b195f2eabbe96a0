"""Events on their way in: parsed, sent to the consumer, counted; and why they cannot be stored, when they cannot."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from prometheus_client import Counter

from bentos.telemetry.events_client import EventsClient
from bentos.telemetry.events_in import parse_events
from contracts.errors import StreamRecError
from contracts.http import EventsAccepted, ItemsChanged
from contracts.live_items import ItemChange

log = logging.getLogger("streamrec.telemetry")


class EventIntake:
    """
    Args:
        counter: labelled by `accepted`, `duplicate` and `failed`.

    about: is told of every user that events were sent of, stored or not.
    """

    def __init__(self, home: Path, online_store: str, event_log: str, counter: Counter) -> None:
        self._client = EventsClient(home, online_store=online_store, event_log=event_log)
        self._counter = counter
        self.about: Callable[[str], None] = lambda user_id: None
        self.problem = ""

    async def start(self) -> None:
        await self._client.start()

    async def close(self) -> None:
        await self._client.close()

    async def accept(self, body: bytes) -> EventsAccepted:
        """
        Raises:
            BadRequest: names the event and the field. Unreachable, Overloaded: they are not durable, send them again.
        """
        events = parse_events(body)
        try:
            accepted, duplicates = await self._client.send(events)
        except StreamRecError as error:
            if error.message != self.problem:  # once, not for each request
                log.warning("events are not stored: %s", error.message)
            self.problem = error.message
            self._counter.labels("failed").inc(len(events))
            raise
        finally:
            for event in events:
                self.about(event.user_id)
        self.problem = ""
        self._counter.labels("accepted").inc(accepted)
        self._counter.labels("duplicate").inc(duplicates)
        return EventsAccepted(accepted, duplicates)

    async def change(self, items: Sequence[ItemChange]) -> ItemsChanged:
        """
        Raises:
            Refused: the catalogue takes no more items. Unreachable: the changes are not durable, send them again.
        """
        version, changed = await self._client.change(items)
        return ItemsChanged(version, changed, len(items) - len(changed))
