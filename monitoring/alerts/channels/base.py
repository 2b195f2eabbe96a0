"""What a channel is told, and what it must do with it."""

from dataclasses import dataclass
from typing import Any, Protocol

SEND_S = 3.0  # the watch waits no longer: it holds a lease


@dataclass(frozen=True, slots=True)
class Message:
    """A notice with the words of the schema on it. key: the same whenever it is sent again."""

    key: str
    kind: str  # raised, widened, recovered
    alert: str
    model: str
    subject: str
    criticality: str
    owner: str
    runbook: str
    at_us: int
    since_us: int | None
    text: str
    signals: list[dict[str, Any]]
    lasted_us: int | None = None
    link: str = ""  # a report on it, where there is one


class Channel(Protocol):
    name: str

    def send(self, message: Message) -> None:
        """Tell it, within `SEND_S`. It may have been told already: a receiver must count each key once.

        Raises:
            Refused: it does not take this message; it is tried a few times more, and holds up no other.
            StreamRecError, OSError: it could not be told; it is tried again, before any other.
        """
