from dataclasses import replace

import pytest

from contracts.errors import NotFound, UsageError
from features.definitions import FeatureDefinition
from features.registry import REGISTRY, Registry

GOOD = FeatureDefinition("a", "user", "float", "batch", 0.0, 60.0, "ranking", "a number")


def test_a_name_twice_is_an_error() -> None:
    with pytest.raises(UsageError, match="a is defined twice"):
        Registry([GOOD, replace(GOOD, default=1.0)])


def test_the_report_names_what_is_missing() -> None:
    bad = Registry(
        [
            replace(GOOD, name="no_default", default=None),
            replace(GOOD, name="no_owner", owner=""),
            replace(GOOD, name="no_ttl", kind="streaming", ttl_s=None),
            replace(GOOD, name="no_time", ttl_s=0.0),
        ]
    )
    assert bad.report() == [
        "no_default has no default",
        "no_owner has no owner",
        "no_ttl is streaming without a TTL",
        "no_time has a TTL of 0.0 s",
    ]


def test_the_project_s_own_registry_is_consistent() -> None:
    assert REGISTRY.report() == []


@pytest.mark.parametrize(
    ("name", "kind", "default", "ttl_h"),
    [
        ("user_embedding_128d", "batch", (), 48),
        ("user_avg_session_length_min", "batch", 12.0, 48),
        ("user_last_10_interactions", "streaming", (), 24),
        ("user_category_preferences", "batch", (), 48),
        ("item_embedding_128d", "batch", (), 168),
        ("item_ctr_7d", "batch", 0.02, 24),
        ("item_completion_rate_7d", "batch", 0.5, 24),
        ("item_trending_score", "streaming", 0.0, 6),
    ],
)
def test_the_promised_features_have_their_defaults_and_ttls(name: str, kind: str, default: object, ttl_h: int) -> None:
    definition = REGISTRY[name]
    assert (definition.kind, definition.default, definition.ttl_s) == (kind, default, ttl_h * 3600)


def test_the_hash_follows_meaning_and_neither_words_nor_order() -> None:
    two = replace(GOOD, name="b")
    base = Registry([GOOD, two]).hash
    assert Registry([two, GOOD]).hash == base
    assert Registry([replace(GOOD, owner="x", description="y"), two]).hash == base
    for changed in (replace(GOOD, default=1.0), replace(GOOD, ttl_s=61.0), replace(GOOD, version=2)):
        assert Registry([changed, two]).hash != base
    assert Registry([GOOD]).hash != base


def test_an_unknown_feature_is_not_found_with_the_command_that_lists_them() -> None:
    with pytest.raises(NotFound) as caught:
        REGISTRY["shoe_size"]
    assert caught.value.next_command == "streamrec features list"
