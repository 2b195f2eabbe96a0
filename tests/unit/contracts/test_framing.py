from pathlib import Path

import pytest

from contracts.errors import DataError
from contracts.framing import LATENCY_MS, Framing
from contracts.settings import Settings

DOCUMENT = """
[retrieval]
target = ["click", "purchase"]
[ranking]
horizon_d = 7
latency = "relaxed"
[ranking.costs]
false_negative = 4
[ranking.gains]
purchase = 3
[fallback]
features = ["item_pop_7d"]
"""


def test_a_document_says_target_horizon_features_costs_and_latency(tmp_path: Path) -> None:
    path = tmp_path / "framing.toml"
    path.write_text(DOCUMENT)
    framing = Framing.read(path)
    assert framing.retrieval.target == ("click", "purchase")
    assert framing.ranking.horizon_d == 7
    assert framing.ranking.costs.false_negative == 4
    assert framing.ranking.costs.false_positive == 1
    assert framing.ranking.gains == {"purchase": 3}
    assert framing.ranking.budget_ms == 150
    assert framing.fallback.features == ("item_pop_7d",)


def test_without_a_document_all_errors_cost_the_same_and_every_model_has_a_budget() -> None:
    framing = Framing.read(None)
    assert framing.ranking.costs == framing.fallback.costs
    assert framing.ranking.costs.false_positive == framing.ranking.costs.false_negative == 1
    assert (framing.retrieval.budget_ms, framing.ranking.budget_ms, framing.fallback.budget_ms) == (30, 50, 5)


def test_the_default_budgets_are_those_that_serving_gives_the_stages() -> None:
    settings = Settings()
    assert LATENCY_MS["fast"] == settings.retrieval_budget_ms
    assert LATENCY_MS["interactive"] == settings.ranking_budget_ms


@pytest.mark.parametrize(
    "text",
    [
        "[ranking]\nlatency = 'soon'",
        "[ranking.costs]\nfalse_negative = 0",
        "[ranking.gains]\nclick = 0",
        "[ranking]\nhorizon_d = -1",
        "[fallback]\nhorizon_d = 1",  # the ranker's holds
        "[retrieval.costs]\nfalse_negative = 2",  # nobody would read it
    ],
)
def test_what_nobody_can_follow_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "framing.toml"
    path.write_text(text)
    with pytest.raises(DataError, match="framing"):
        Framing.read(path)
