"""What a feature is. The list of all of them: registry.py."""

from dataclasses import dataclass
from typing import Any, Literal

Entity = Literal["user", "item"]
# float: one number. embedding: float32 [128]. weights: name → share. interactions: newest first.
Dtype = Literal["float", "embedding", "weights", "interactions"]
Kind = Literal["batch", "streaming", "on_demand"]

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class FeatureDefinition:
    """One feature, for training and serving alike.

    default: what is served where there is no value or only one past its TTL; immutable (tuples, not lists). An empty
    tuple stands for an empty map, and for the zero vector. `None` is "no default", which the registry reports.
    ttl_s: seconds after which a value is no longer served; None: it does not age (on-demand features).
    version: raised whenever the computation changes, so that models trained on the old meaning no longer fit.
    """

    name: str
    entity: Entity
    dtype: Dtype
    kind: Kind
    default: Any
    ttl_s: float | None
    owner: str
    description: str
    version: int = 1

    @property
    def ttl_us(self) -> int | None:
        return None if self.ttl_s is None else int(self.ttl_s * 1_000_000)
