"""Streaming features as pure functions (state, event) → state.

The consumer folds them over arriving events, `parity` over a replayed log, and the offline side over a sorted one:
one code path. The order of interactions is total, so that every store agrees on ties: newest first, then item id and
event, both descending by code point.
"""

from collections.abc import Iterable

from contracts.dataset import DatasetConfig
from contracts.events import IMPRESSION as IMPRESSION
from contracts.events import Event
from contracts.serving import HISTORY_LENGTH
from features.labels import LabelRule
from features.online.base import Interaction
from features.sessions import Session, add_event


def impression_events(config: DatasetConfig | None = None) -> frozenset[str]:
    """Names of events that are no interactions."""
    own = config.impression_event if config else None
    return frozenset({IMPRESSION, own}) if own else frozenset({IMPRESSION})


def recency(interaction: Interaction) -> tuple[int, str, str]:
    """Sort key; the greatest is the newest."""
    return interaction.timestamp_us, interaction.item_id, interaction.event


def merge_last(last: Iterable[Interaction], new: Iterable[Interaction]) -> tuple[Interaction, ...]:
    """The newest 10 of both, each (item, event, time) once. Late and repeated events are welcome."""
    both = {recency(i): i for i in (*last, *new)}
    return tuple(both[key] for key in sorted(both, reverse=True)[:HISTORY_LENGTH])


def push(last: tuple[Interaction, ...], new: Interaction) -> tuple[Interaction, ...]:
    """`merge_last` for one event: the common case, an event newer than all, costs no sort."""
    if not last or recency(new) > recency(last[0]):
        return (new, *last[: HISTORY_LENGTH - 1])
    return merge_last(last, (new,))


def fold(
    last: tuple[Interaction, ...], sessions: tuple[Session, ...], event: Event, skip: frozenset[str]
) -> tuple[tuple[Interaction, ...], tuple[Session, ...]]:
    """One event more for its user. skip: names of events that are no interactions; a session has them all the same."""
    if event.event not in skip:
        last = push(last, Interaction(event.item_id, event.event, event.timestamp_us))
    return last, add_event(sessions, event.timestamp_us)


def positive_weight(config: DatasetConfig, event: str, value: float | None) -> float:
    """Weight of an event as a wish for its item; 0 when it is none."""
    return LabelRule.of(config).weight(event, value)


def click_event(config: DatasetConfig) -> str:
    """What counts as a click for the click-through rate: `click` where it is a positive, else the first positive."""
    names = [p.event for p in config.positives]
    return "click" if "click" in names else names[0]
