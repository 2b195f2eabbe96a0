"""The literal list of features, and what can be said about it without data."""

import hashlib
import json
from collections.abc import Iterable, Iterator

from contracts.errors import NotFound, UsageError
from features.definitions import HOUR_S, Entity, FeatureDefinition

POPULARITY_HALF_LIVES_D = {
    "item_pop_1d": 1.0,
    "item_pop_3d": 3.0,
    "item_pop_7d": 7.0,
    "item_pop_14d": 14.0,
    "item_pop_60d": 60.0,
}
TRENDING_HALF_LIFE_H = 12.0
PREFERENCE_HALF_LIFE_D = 30.0
CTR_PRIOR = 20.0  # impressions
COMPLETION_PRIOR = 5.0  # views


class Registry:
    """Definitions by name, in the order given.

    Raises:
        UsageError: a name stands twice.
    """

    def __init__(self, definitions: Iterable[FeatureDefinition]) -> None:
        self._by_name: dict[str, FeatureDefinition] = {}
        for definition in definitions:
            if definition.name in self._by_name:
                raise UsageError(f"feature {definition.name} is defined twice in features/registry.py")
            self._by_name[definition.name] = definition

    def __iter__(self) -> Iterator[FeatureDefinition]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> FeatureDefinition:
        try:
            return self._by_name[name]
        except KeyError:
            raise NotFound(f"no feature is called {name}", next_command="streamrec features list") from None

    def of(self, entity: Entity) -> tuple[FeatureDefinition, ...]:
        return tuple(d for d in self if d.entity == entity)

    def report(self) -> list[str]:
        """Inconsistencies, one sentence each. Empty when there are none."""
        problems = []
        for d in self:
            if d.default is None:
                problems.append(f"{d.name} has no default")
            if not d.owner:
                problems.append(f"{d.name} has no owner")
            if d.kind == "streaming" and d.ttl_s is None:
                problems.append(f"{d.name} is streaming without a TTL")
            if d.ttl_s is not None and d.ttl_s <= 0:
                problems.append(f"{d.name} has a TTL of {d.ttl_s} s")
        return problems

    @property
    def hash(self) -> str:
        """SHA-256 over what changes a value: not over owner and description, whose typos may be mended freely."""
        content = [[d.name, d.entity, d.dtype, d.kind, d.default, d.ttl_s, d.version] for d in self]
        text = json.dumps(sorted(content, key=lambda row: row[0]), separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _popularity(name: str, half_life_d: float) -> FeatureDefinition:
    return FeatureDefinition(
        name, "item", "float", "batch", 0.0, 24 * HOUR_S, "ranking",
        f"positive events, each weighing 2^(-age / {half_life_d:g} days)",
    )  # fmt: skip


# fmt: off
REGISTRY = Registry([
    FeatureDefinition(
        "user_embedding_128d", "user", "embedding", "batch", (), 48 * HOUR_S, "retrieval",
        "the user's place in the two-tower space, unit length"),
    FeatureDefinition(
        "user_avg_session_length_min", "user", "float", "batch", 12.0, 48 * HOUR_S, "ranking",
        "mean minutes from first to last event of a session, over the last 30 days"),
    FeatureDefinition(
        "user_last_10_interactions", "user", "interactions", "streaming", (), 24 * HOUR_S, "retrieval",
        "the last 10 events other than impressions, newest first"),
    FeatureDefinition(
        "user_category_preferences", "user", "weights", "batch", (), 48 * HOUR_S, "ranking",
        "share of each category in the user's positive events, with a half-life of 30 days"),
    FeatureDefinition(
        "user_positives_30d", "user", "float", "batch", 0.0, 48 * HOUR_S, "ranking",
        "weighted positive events of the last 30 days"),
    FeatureDefinition(
        "user_positives_total", "user", "float", "batch", 0.0, 48 * HOUR_S, "ranking",
        "weighted positive events ever"),
    FeatureDefinition(
        "user_active_days_30d", "user", "float", "batch", 0.0, 48 * HOUR_S, "ranking",
        "days (UTC) with a positive event among the last 30 days"),
    FeatureDefinition(
        "user_tenure_days", "user", "float", "batch", 0.0, 48 * HOUR_S, "ranking",
        "days since the user's first event"),
    FeatureDefinition(
        "item_embedding_128d", "item", "embedding", "batch", (), 168 * HOUR_S, "retrieval",
        "the item's place in the two-tower space, unit length"),
    FeatureDefinition(
        "item_ctr_7d", "item", "float", "batch", 0.02, 24 * HOUR_S, "ranking",
        "clicks per impression over 7 days, shrunk to the default by 20 impressions' worth of prior"),
    FeatureDefinition(
        "item_completion_rate_7d", "item", "float", "batch", 0.5, 24 * HOUR_S, "ranking",
        "mean share completed over 7 days, shrunk to the default by 5 views' worth of prior"),
    FeatureDefinition(
        "item_trending_score", "item", "float", "streaming", 0.0, 6 * HOUR_S, "retrieval",
        f"positive events, each weighing 2^(-age / {TRENDING_HALF_LIFE_H:g} h)"),
    *(_popularity(name, days) for name, days in POPULARITY_HALF_LIVES_D.items()),
    FeatureDefinition(
        "item_pop_total", "item", "float", "batch", 0.0, 24 * HOUR_S, "ranking",
        "weighted positive events ever"),
    FeatureDefinition(
        "item_users_30d", "item", "float", "batch", 0.0, 24 * HOUR_S, "ranking",
        "users with a positive event on the item in the last 30 days"),
    FeatureDefinition(
        "item_age_days", "item", "float", "on_demand", 0.0, None, "ranking",
        "days from publication to the moment of the request"),
])
# fmt: on
