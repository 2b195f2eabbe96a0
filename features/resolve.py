"""From what the store holds to what models read: TTLs and defaults. The one place for both, offline and online.

When is a value too old? A batch value was true at its stamp, the moment as of which it was computed; its age is now
minus that. A streaming value is different: a user who has not come for three days has an old last interaction and yet
a current history, since nothing happened that it lacks. What can be too old is the *stream*. So a streaming value's
age is now minus the watermark (the moment up to which the stream is known to be whole: what the consumer or
`features materialize` last said), or minus its newest event where that is later. A dead consumer makes everybody
stale within the TTL; a quiet user stays fresh, and how long ago the interactions were is an input of the models.

A value that was never written is the default with age None and is not stale: a new user is not a degraded one.
"""

import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.exposures import FeatureUsed
from contracts.serving import EMBEDDING_DIM
from features.definitions import FeatureDefinition
from features.online.base import Interaction, UserState
from features.registry import REGISTRY

LAST_10 = "user_last_10_interactions"
_USER = tuple(d for d in REGISTRY.of("user") if d.kind != "on_demand")
_ITEM = tuple(d for d in REGISTRY.of("item") if d.kind != "on_demand")
_ZEROS = np.zeros(EMBEDDING_DIM, np.float32)
_ZEROS.setflags(write=False)
_NO_WEIGHTS: Mapping[str, float] = {}
NEVER_US = 2**62


@dataclass(frozen=True, slots=True)
class Resolved:
    """features: every user feature of the registry. stale: those that had a value which is too old."""

    features: Mapping[str, Any]
    used: tuple[FeatureUsed, ...]
    stale: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ResolvedItems:
    """columns: every item feature, float32 [N], no NaN; `item_embedding_128d` float32 [N, 128] only where there is a
    fresh one, since a catalogue of zero vectors says nothing. valid_until_us: the last moment this answer holds."""

    columns: Mapping[str, NDArray[np.float32]]
    used: tuple[FeatureUsed, ...]
    stale: tuple[str, ...]
    valid_until_us: int


def default_of(definition: FeatureDefinition) -> Any:
    """The default as models read it: float, float32 [128], mapping or tuple of interactions."""
    if definition.dtype == "embedding":
        return _ZEROS
    if definition.dtype == "weights":
        return _NO_WEIGHTS
    return definition.default


def resolve(state: UserState, now_us: int) -> Resolved:
    """User features as of now. Ages are never negative: a value from the future is as fresh as can be.

    Where `user_last_10_interactions` is stale, `state.last` still holds the interactions: enough to suppress what the
    user has seen, not to be fed to a model as the session.
    """
    features: dict[str, Any] = {}
    used: list[FeatureUsed] = []
    stale: list[str] = []
    for definition in _USER:
        name = definition.name
        if name == LAST_10:
            value: Any = state.last or None
            stamp = max(state.watermark_us or 0, state.last[0].timestamp_us) if state.last else 0
        else:
            stamped = state.batch.get(name)
            value, stamp = (None, 0) if stamped is None else (stamped.value, stamped.timestamp_us)
        if value is None:
            features[name] = value = default_of(definition)
            used.append(FeatureUsed(name, loggable(definition, value), None, "default"))
            continue
        age_us = max(0, now_us - stamp)
        if definition.ttl_us is not None and age_us > definition.ttl_us:
            stale.append(name)
            features[name] = value = default_of(definition)
            used.append(FeatureUsed(name, loggable(definition, value), age_us / 1e6, "default"))
        else:
            features[name] = value
            used.append(FeatureUsed(name, loggable(definition, value), age_us / 1e6, "store"))
    return Resolved(features, tuple(used), tuple(stale))


def resolve_items(
    columns: Mapping[str, NDArray[np.float32]], timestamps_us: Mapping[str, int], n_items: int, now_us: int
) -> ResolvedItems:
    """Item features as of now: a column past its TTL, or one that was never computed, is its default all over.

    A whole pass over the columns: call it when a snapshot arrives and again after `valid_until_us`, not per request.

    Args:
        columns: name → float32 [n_items], NaN where never computed.
    """
    resolved: dict[str, NDArray[np.float32]] = {}
    used: list[FeatureUsed] = []
    stale: list[str] = []
    valid_until = NEVER_US
    for definition in _ITEM:
        name, number = definition.name, definition.dtype == "float"
        column = columns.get(name)
        if column is None or name not in timestamps_us:
            if number:
                resolved[name] = np.full(n_items, definition.default, np.float32)
            used.append(FeatureUsed(name, None, None, "default"))
            continue
        age_us = max(0, now_us - timestamps_us[name])
        ttl_us = definition.ttl_us
        if ttl_us is not None and age_us > ttl_us:
            stale.append(name)
            if number:
                resolved[name] = np.full(n_items, definition.default, np.float32)
            used.append(FeatureUsed(name, None, age_us / 1e6, "default"))
            continue
        if ttl_us is not None:
            valid_until = min(valid_until, timestamps_us[name] + ttl_us)
        resolved[name] = np.where(np.isnan(column), np.float32(definition.default), column) if number else column
        used.append(FeatureUsed(name, None, age_us / 1e6, "store"))
    return ResolvedItems(resolved, tuple(used), tuple(stale), valid_until)


def stale_items(timestamps_us: Mapping[str, int], now_us: int) -> tuple[str, ...]:
    """Names that `resolve_items` would call stale, without the pass over the columns."""
    return tuple(
        d.name
        for d in _ITEM
        if d.name in timestamps_us and d.ttl_us is not None and now_us - timestamps_us[d.name] > d.ttl_us
    )


def loggable(definition: FeatureDefinition, value: Any) -> float | str | list[str] | dict[str, float] | None:
    """The value as a context record keeps it. An embedding leaves its checksum: 128 floats would outweigh the rest."""
    match definition.dtype:
        case "float":
            return float(value) if math.isfinite(value) else None
        case "embedding":
            return "zero" if value is _ZEROS else f"crc32:{zlib.crc32(value.tobytes()):08x}"
        case "weights":
            return dict(value)
        case "interactions":
            return interaction_words(value)


def interaction_words(last: Iterable[Interaction]) -> list[str]:
    """Item, event and moment of each, by tabs."""
    return [f"{i.item_id}\t{i.event}\t{i.timestamp_us}" for i in last]
