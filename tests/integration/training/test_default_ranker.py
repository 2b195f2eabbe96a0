"""A training that names no ranker: who serves is asked across time, and the run is repeated from its lineage."""

from pathlib import Path

import pytest

from contracts.settings import Settings
from registry.artifacts import open_bundle
from registry.models import Registry
from training.ablation.result import AblationConfig
from training.baselines.fitted import LadderConfig
from training.holdout import time_of_share
from training.models.trees import TreesConfig
from training.pipeline import TrainConfig, TrainResult, train
from training.ranking import RankingConfig
from training.repeat import repeat

ALL = {"linear", "trees", "dcn", "ensemble"}


@pytest.fixture(scope="module")
def trained(
    data: Path, quick: TrainConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainResult, Settings, Path]:
    root = tmp_path_factory.mktemp("default")
    settings = Settings(home=root / "home")
    config = quick.model_copy(
        update={
            "ranking": RankingConfig(moments=2, window_share=0.1),
            "trees": TreesConfig(rounds=8, leaves=4, min_rows_in_leaf=20),
            "ladder": LadderConfig(boosted=False),
            "ablation": AblationConfig(users=0),
        }
    )
    result = train(
        data, until_us=time_of_share(data, 0.1), seed=2, settings=settings, config=config, keep=root / "bundles"
    )
    return result, settings, root / "bundles"


def test_the_ranker_that_serves_is_the_one_that_was_chosen_across_time(
    trained: tuple[TrainResult, Settings, Path],
) -> None:
    result, settings, bundles = trained
    chosen = result.ranker.partition(",")[0]
    assert "the simplest within 1% of the best" in result.ranker
    assert "at the last moment, learned at the 1 before" in result.ranker
    facts = Registry.open(settings).run_facts(result.run_id)
    found = {name: facts.metrics[f"choice_ndcg@10_{name}"] for name in ALL}
    assert found[chosen] >= 0.99 * max(found.values())
    assert chosen in facts.tags["ranker"]
    manifest = open_bundle(bundles / "ranking", "ranking").manifest
    assert manifest.params["ranker"] == chosen
    assert manifest.params["choice_ndcg@10_dcn"] == found["dcn"]


def test_a_run_of_the_default_is_repeated_to_the_last_digit(trained: tuple[TrainResult, Settings, Path]) -> None:
    first, settings, _ = trained
    again = repeat(first.run_id, settings)
    assert again.comparison.differences == {}
    assert again.comparison.compared > 100
    assert again.result.ranker == first.ranker
