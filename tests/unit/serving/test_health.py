import pytest

from bentos.recommender.health import Component, best_rung, status

HEALTHY, DEGRADED, AWAY = Component("healthy"), Component("degraded", "why"), Component("unhealthy", "why")
WELL = {"retrieval": HEALTHY, "ranking": HEALTHY, "fallback": HEALTHY, "online_store": HEALTHY}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "ready"),
        ({"ranking": AWAY}, "degraded"),
        ({"online_store": DEGRADED}, "degraded"),
        ({"fallback": AWAY}, "degraded"),
        ({"retrieval": AWAY}, "degraded"),
        ({"retrieval": AWAY, "fallback": AWAY}, "unavailable"),
    ],
)
def test_only_a_process_that_can_serve_nothing_is_unavailable(changed, said):
    assert status("serving", {**WELL, **changed}) == said


@pytest.mark.parametrize("phase", ["loading", "draining", "stopped"])
def test_outside_of_serving_the_best_components_do_not_make_it_ready(phase):
    assert status(phase, WELL) == "unavailable"


@pytest.mark.parametrize(
    ("models_allow", "store", "stale_items", "said"),
    [
        ("full", HEALTHY, (), "full"),
        ("full", DEGRADED, (), "stale_features"),
        ("full", HEALTHY, ("item_ctr_7d",), "stale_features"),
        ("simple_ranking", DEGRADED, (), "simple_ranking"),
        ("popularity", DEGRADED, ("item_ctr_7d",), "popularity"),
    ],
)
def test_the_best_rung_is_the_one_that_answers_have(models_allow, store, stale_items, said):
    assert best_rung(models_allow, store, stale_items) == said
