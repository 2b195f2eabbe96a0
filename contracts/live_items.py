"""Changes of the live catalogue, and the state of an item that they leave: what is stored and what travels."""

from typing import Literal

import msgspec


class ItemFacts(msgspec.Struct, frozen=True, array_like=True):
    """What a consumer says an item is. published_us None: not said, so what is known of it stays."""

    category: str
    creator_id: str | None = None
    price: float | None = None
    published_us: int | None = None
    is_promoted: bool = False
    title: str | None = None


class ItemChange(msgspec.Struct, frozen=True, array_like=True):
    """One thing done to one item at `at_us`. flagged None: nothing is said of it."""

    item_id: str
    kind: Literal["put", "flag", "remove"]
    at_us: int
    facts: ItemFacts | None = None
    flagged: bool | None = None


class ItemState(msgspec.Struct, frozen=True, array_like=True):
    """What all changes of an item have come to: the newest state is all that is kept.

    facts None: never put, so that a Bento's own record of the item holds. flagged None: the Bento's own flag holds.
    first_us: when it was first put; ordinal: the how manieth item it was then, from 1, never given again and 0 before:
    all processes number items that their Bento does not know in this order.
    """

    item_id: str
    facts: ItemFacts | None = None
    flagged: bool | None = None
    removed: bool = False
    first_us: int = 0
    ordinal: int = 0

    @property
    def withheld(self) -> bool:
        """Must not be shown, whatever a Bento knows of it."""
        return self.removed or self.flagged is True


def after(state: ItemState | None, change: ItemChange) -> ItemState:
    """The state that a change leaves. Repeating a change leaves the same state.

    A put brings a removed item back; it leaves a flag alone unless it names one: a nightly load of the whole catalogue
    must not show again what somebody took down.
    """
    before = state or ItemState(change.item_id)
    match change.kind:
        case "put":
            return msgspec.structs.replace(
                before,
                facts=change.facts,
                flagged=before.flagged if change.flagged is None else change.flagged,
                removed=False,
                first_us=before.first_us or change.at_us,
            )
        case "flag":
            return msgspec.structs.replace(before, flagged=change.flagged)
        case "remove":
            return msgspec.structs.replace(before, removed=True)
