"""A framing against a data set, and what rows and models make of it."""

import numpy as np
import pytest

from contracts.dataset import Attribute, DatasetConfig, Positive
from contracts.errors import DataError
from contracts.framing import Costs, FallbackFrame, Framing, RankingFrame, RetrievalFrame
from features import inputs
from training.framing import framed, retrieval_inputs
from training.holdout import Window
from training.models.dcn_v2 import RankingRows
from training.ranking import RankingConfig
from training.retrieval import RetrievalConfig
from training.worth import worth

SHOP = DatasetConfig(
    name="shop",
    positives=(Positive(event="click"), Positive(event="purchase", weight=3.0)),
    features=(Attribute(column="age_band", table="users", kind="categorical"),),
)


def held(framing: Framing) -> object:
    return framed(framing, SHOP, RetrievalConfig(), RankingConfig())


def test_the_defaults_change_nothing_and_are_spelt_out() -> None:
    retrieval, ranking = RetrievalConfig(), RankingConfig(window_share=0.1)
    frame = framed(Framing(), SHOP, retrieval, ranking)
    assert (frame.retrieval, frame.ranking, frame.warnings) == (retrieval, ranking, ())
    assert frame.document["retrieval"]["target"] == {"click": 1.0, "purchase": 3.0}
    assert frame.document["retrieval"]["horizon"] == "14 days"
    assert "attribute.age_band" in frame.document["retrieval"]["features"]
    assert frame.document["ranking"]["target"] == {"click": 1.0, "purchase": 1.0}
    assert frame.document["ranking"]["horizon"] == "the next 10% of the rows"
    assert frame.document["ranking"]["features"] == list(inputs.of_rows())
    assert frame.document["ranking"]["budget_ms"] == 50
    assert frame.document["fallback"]["costs"] == {"false_positive": 1.0, "false_negative": 1.0}


def test_horizons_reach_the_models() -> None:
    framing = Framing(retrieval=RetrievalFrame(horizon_d=3), ranking=RankingFrame(horizon_d=5))
    frame = framed(framing, SHOP, RetrievalConfig(), RankingConfig(window_share=0.1))
    assert frame.retrieval.two_tower.period_d == frame.retrieval.graph.period_d == 3
    assert frame.document["retrieval"]["horizon"] == "3 days"
    assert frame.ranking.horizon_us == 5 * 86_400_000_000
    assert frame.document["ranking"]["horizon"] == "the next 10% of the rows, at most 5 days"


@pytest.mark.parametrize(
    ("framing", "said"),
    [
        (Framing(ranking=RankingFrame(target=("purchase",))), r"`ranking.target` is purchase; the wishes of shop are"),
        (Framing(ranking=RankingFrame(gains={"rating": 2})), "`ranking.gains` names rating"),
        (Framing(ranking=RankingFrame(features=("item_returns_90d",))), "item_returns_90d, which nothing gives"),
        (Framing(retrieval=RetrievalFrame(features=("attribute.shoe_size",))), "attribute.shoe_size, which nothing"),
        (
            Framing(retrieval=RetrievalFrame(features=tuple(n for n in retrieval_inputs(SHOP) if "age_band" not in n))),
            "retrieval reads attribute.age_band",
        ),
    ],
)
def test_a_framing_that_is_not_so_is_refused(framing: Framing, said: str) -> None:
    with pytest.raises(DataError, match=said):
        held(framing)


def test_inputs_that_are_not_named_are_told() -> None:
    named = tuple(name for name in inputs.of_rows() if name != inputs.DEVICE)
    frame = framed(Framing(ranking=RankingFrame(features=named)), SHOP, RetrievalConfig(), RankingConfig())
    assert frame.warnings == ("the ranker does not read device: the framing does not name what they are computed from",)
    frame = framed(Framing(fallback=FallbackFrame(features=named)), SHOP, RetrievalConfig(), RankingConfig())
    assert frame.warnings[0].startswith("the light ranker does not read device")
    assert inputs.DEVICE not in frame.document["fallback"]["features"]
    assert inputs.DEVICE in frame.document["ranking"]["features"]


def test_a_wish_is_worth_its_highest_gain() -> None:
    user = np.array([0, 0, 1, -1, 1], np.int32)
    item = np.array([2, 2, 0, 1, 9], np.int64)  # item 9 is in no catalogue
    window = Window(0, 1, user, item, np.zeros(5, np.int64), np.array([0, 1, 0, 1, 1], np.int64))
    found = worth(window, SHOP, {"purchase": 5.0}, (2, 3))
    assert found is not None
    assert found.toarray().tolist() == [[0, 0, 5], [1, 0, 0]]
    assert worth(window, SHOP, {"purchase": 1.0}, (2, 3)) is None


def test_rows_weigh_by_gain_and_cost_with_a_mean_of_one() -> None:
    gains = np.array([4, 1, 1, 1], np.float32)
    rows = RankingRows(np.zeros((4, 1), np.float32), np.array([1, 1, 0, 0], np.int8), np.array([0, 4]), (), gains)
    # 4 × 3, 1 × 3, 2, 2: a mean of 19 / 4
    expected = np.array([12, 3, 2, 2]) * 4 / 19
    assert rows.weights(Costs(false_positive=2, false_negative=3)) == pytest.approx(expected, rel=1e-6)
    plain = RankingRows(rows.rows, rows.labels, rows.indptr)
    assert plain.weights(Costs()).tolist() == [1, 1, 1, 1]
    assert RankingRows.join([rows, plain]).gains.tolist() == [4, 1, 1, 1, 1, 1, 1, 1]
