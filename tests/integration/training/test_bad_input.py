"""Bad input from end to end: trained with what there is and the very warning, or refused with the reason."""

import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from contracts.dataset import CONFIG
from contracts.errors import DataError
from contracts.evidence import Check
from contracts.settings import Settings
from registry.models import Registry
from training.ablation.result import AblationConfig
from training.baselines.fitted import LadderConfig
from training.fitting import Fitter
from training.holdout import time_of_share
from training.models.dcn_v2 import DcnConfig
from training.pipeline import TrainConfig, TrainResult, train
from training.ranking import RankingConfig

Change = Callable[[pa.Table], pa.Table]
# (result, checks of the ranking) of a training of the world in which dataset.toml or some tables are others.
Trained = Callable[..., tuple[TrainResult, dict[str, Check]]]


@pytest.fixture(scope="module")
def one_home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """For all: the migrations of its database take seconds."""
    return Settings(home=tmp_path_factory.mktemp("home"))


@pytest.fixture
def trained(
    data: Path, quick: TrainConfig, one_home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Trained:
    """As little training as goes from one end to the other: one moment, no trees on the ladder, nothing ablated."""
    # In this process: one beside it takes longer to start than to fit.
    monkeypatch.setattr("training.pipeline.Fitter", partial(Fitter, at_once=1))
    config = quick.model_copy(
        update={
            "ranking": RankingConfig(ranker="dcn", moments=1, window_share=0.1),
            "dcn": DcnConfig(cross_layers=1, hidden=(8,), epochs=1, min_steps=2),
            "ladder": LadderConfig(boosted=False),
            "ablation": AblationConfig(users=0),
        }
    )

    def run(config_of: Callable[[str], str] = str, **changes: Change) -> tuple[TrainResult, dict[str, Check]]:
        folder = tmp_path / "data"
        shutil.copytree(data, folder)
        (folder / CONFIG).write_text(config_of((folder / CONFIG).read_text()))
        for name, change in changes.items():
            pq.write_table(change(pq.read_table(folder / f"{name}.parquet")), folder / f"{name}.parquet")
        result = train(folder, until_us=time_of_share(folder, 0.1), seed=0, settings=one_home, config=config)
        registry = Registry.open(one_home)
        evidence = registry.evidence(registry.resolve(result.models["ranking"]))
        assert evidence is not None
        assert all(value is None or math.isfinite(value) for value in result.metrics.values())
        return result, {check.name: check for check in evidence.checks}

    return run


def clicks(log: pa.Table) -> pa.Table:
    return log.filter(pc.equal(log["event"], "click")).sort_by("timestamp")


def warned(result: TrainResult, *words: str) -> None:
    for word in words:
        assert any(word in warning for warning in result.warnings), (word, result.warnings)


def test_few_events_and_all_of_them_positive(trained: Trained) -> None:
    result, checks = trained(interactions=lambda log: clicks(log).slice(0, 60))
    warned(
        result,
        "positive events: figures are noisy",
        "positive candidates only",
        "every event is a positive: click rates stay at their defaults",
    )
    for name in ("metrics", "calibration", "leakage_ids"):
        assert checks[name].verdict == "inconclusive", checks[name]
    assert checks["parity"].verdict == "pass"  # online the rates stay there too


def test_one_user(trained: Trained) -> None:
    def of_one(log: pa.Table) -> pa.Table:
        counts = pc.value_counts(clicks(log)["user_id"].combine_chunks())
        user = counts.field("values")[pc.index(counts.field("counts"), pc.max(counts.field("counts"))).as_py()]
        return log.filter(pc.equal(log["user_id"], user))

    result, checks = trained(interactions=of_one)
    warned(result, "one user: nothing is learned from others")
    assert checks["leakage_overlap"].verdict == "inconclusive"  # nobody can be held out


def test_events_on_one_item(trained: Trained) -> None:
    def of_one(log: pa.Table) -> pa.Table:
        return log.filter(pc.equal(log["item_id"], clicks(log)["item_id"][0]))

    result, checks = trained(interactions=of_one)
    warned(result, "events on one item only: the other items are known by their attributes alone")
    assert checks["metrics"].verdict == "inconclusive"


def test_a_catalogue_of_one_item_is_refused(trained: Trained, data: Path) -> None:
    only = clicks(pq.read_table(data / "interactions.parquet"))["item_id"][0]

    def of_one(table: pa.Table) -> pa.Table:
        return table.filter(pc.equal(table["item_id"], only))

    with pytest.raises(DataError, match="has one item: there is nothing to choose from"):
        trained(items=of_one, interactions=of_one)


def without_metadata(items: pa.Table) -> pa.Table:
    kept = items.select(["item_id", "published_at"])
    return kept.append_column("category", pa.nulls(kept.num_rows, pa.string()))


def test_items_without_the_metadata_that_the_data_set_declares_are_refused(trained: Trained) -> None:
    with pytest.raises(DataError, match=r"feature `creator_id` is not a column of items\.parquet"):
        trained(items=without_metadata)


def test_items_without_metadata_poor_columns_of_users_and_a_slice_of_nobody(trained: Trained, data: Path) -> None:
    """One age for all, no country for two thirds; the one user from NZ does nothing in the test window."""
    log = clicks(pq.read_table(data / "interactions.parquet"))
    away = log["user_id"][0]
    moments = pq.read_table(data / "interactions.parquet", columns=["timestamp"])["timestamp"].sort()
    cut = moments[int(len(moments) * 0.85)]

    def of_users(config: str) -> str:
        head, *features = config.split("[[features]]")
        return "[[features]]".join([head, *(one for one in features if 'table = "items"' not in one)])

    def leaves(rows: pa.Table) -> pa.Table:
        gone = pc.and_(pc.equal(rows["user_id"], away), pc.greater_equal(rows["timestamp"], cut))
        return rows.filter(pc.invert(gone))

    def poor(users: pa.Table) -> pa.Table:
        known = [None if at % 3 else user for at, user in enumerate(users["country"].to_pylist())]
        country = pc.if_else(pc.equal(users["user_id"], away), "NZ", pa.array(known, pa.string()))
        users = users.set_column(users.column_names.index("country"), "country", country)
        ages = pa.array(["18-24"] * users.num_rows, pa.string())
        return users.set_column(users.column_names.index("age_band"), "age_band", ages)

    result, checks = trained(of_users, items=without_metadata, users=poor, interactions=leaves)
    warned(
        result,
        "items have no metadata: content retrieval and new items are guessed by popularity",
        "`age_band` of users is constant: it is taken out of the models",
        "`country` of users is missing in 6",  # 66 or 67 %
    )
    assert result.evaluation.funnel.slices["country=NZ"]["ndcg@10"].n == 0
    assert checks["slices"].verdict == "inconclusive"
    assert "with no event in the test" in checks["slices"].detail
