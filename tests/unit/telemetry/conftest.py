"""Records to log."""

from collections.abc import Callable

import pytest

from contracts.exposures import ContextRecord, Exposure, FeatureUsed, Versions

DAY_US = 86_400_000_000
START_US = 20_000 * DAY_US


@pytest.fixture
def exposure() -> Callable[..., Exposure]:
    def make(number: int, **changes: object) -> Exposure:
        fields: dict[str, object] = {
            "request_id": f"r{number}",
            "timestamp_us": START_US + number,
            "clock_us": 5,
            "unit": "u1",
            "user_id": "u1",
            "assigned": "champion",
            "served": "champion",
            "probability": 1.0,
            "exploration": False,
            "slate_propensity": None,
            "outcome": "ok",
            "degradation": "full",
            "item_ids": ["i1", "i2"],
            "versions": Versions("b", "r", "k", "f", "rules"),
            "experiments": {"exp": "treatment"},
        }
        return Exposure(**(fields | changes))  # type: ignore[arg-type]

    return make


@pytest.fixture
def context_record() -> Callable[..., ContextRecord]:
    def make(request_id: str, timestamp_us: int = START_US) -> ContextRecord:
        return ContextRecord(
            request_id=request_id,
            timestamp_us=timestamp_us,
            clock_us=5,
            user_id="u1",
            k=10,
            context={"device": "ios"},
            exclude=["i9"],
            features=[
                FeatureUsed("user_category_preferences", {"books": 0.5}, 3.0, "store"),
                FeatureUsed("user_embedding_128d", [0.5, 0.25], None, "default"),
                FeatureUsed("user_avg_session_length_min", 12.0, None, "default"),
                FeatureUsed("user_last_10_interactions", ["i1"], 1.0, "store"),
            ],
            candidates={"two_tower": ["i1", "i2"], "graph": []},
            top_item_ids=["i1"],
            top_scores=[0.5],
            digest="d",
            ranked_by="dcn",
            stages_ms={"rank": 1.5},
            notes=["late: graph"],
        )

    return make
