"""What goes over the event socket: frames of a 4-byte length and msgpack."""

import asyncio

import msgspec

from contracts.events import Event
from contracts.live_items import ItemChange

# A body of 1 MiB is far below; more is not one of ours.
MAX_FRAME = 16 << 20


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """A client's words: events, or changes of the live catalogue. Neither: good-bye, this client closes in order."""

    number: int
    events: list[Event]
    items: list[ItemChange] = []


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """To the batch `number`, after its commit. `problem`: it was not stored; `retry_after_s`: the queue is full;
    `refused`: it never will be as it is. version, changed: of the live catalogue.
    """

    number: int
    accepted: int = 0
    duplicates: int = 0
    problem: str | None = None
    retry_after_s: int | None = None
    refused: bool = False
    version: int = 0
    changed: list[str] = []


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """
    Raises:
        EOFError: the other side has gone (`IncompleteReadError` is one).
        ValueError: a length that no frame of ours has.
    """
    length = int.from_bytes(await reader.readexactly(4), "big")
    if length > MAX_FRAME:
        raise ValueError(f"a frame of {length} bytes")
    return await reader.readexactly(length)


def frame_of(message: Batch | Reply) -> bytes:
    data = msgspec.msgpack.encode(message)
    return len(data).to_bytes(4, "big") + data
