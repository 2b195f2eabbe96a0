"""The ranker on made-up rows where one product of two columns decides."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from bentos.recommender.onnx_session import open_session
from bentos.recommender.rankers.dcn import FoldedRanker
from contracts.framing import Costs
from features.ranking import RowSchema, row_schema
from registry.artifacts import FAST_RANKER
from training.evaluation import metrics
from training.models.dcn_fast import write_fast
from training.models.dcn_v2 import (
    Cross,
    DcnConfig,
    DcnV2,
    RankingRows,
    _loss,
    _padded,
    export_dcn,
    fit_dcn,
    held_out_ndcg,
    platt,
    predict,
    standardise,
    weights_of,
)

SCHEMA: RowSchema = row_schema()
SMALL = DcnConfig(
    cross_layers=1, hidden=(16,), epochs=15, rows_per_user=40, noise=0.0, forget=0.0, dropout=0.0, learning_rate=5e-3
)


def world(users: int, seed: int) -> RankingRows:
    random = np.random.default_rng(seed)
    values = random.normal(size=(users * 40, len(SCHEMA.columns))).astype(np.float32)
    for at, column in enumerate(SCHEMA.columns):
        if column.kind == "categorical":
            values[:, at] = random.integers(0, column.size, len(values))
    chance = 1 / (1 + np.exp(3 - 3 * values[:, 0] * values[:, 1] - values[:, 2]))
    labels = (random.random(len(values)) < chance).astype(np.int8)
    return RankingRows(values, labels, np.arange(0, users * 40 + 1, 40))


@pytest.fixture(scope="module")
def fitted() -> tuple[DcnV2, RankingRows]:
    held_out = world(60, 2)
    return fit_dcn(SCHEMA, world(400, 1), held_out, seed=3, config=SMALL), held_out


def test_it_learns_a_product_of_two_columns(fitted: tuple[DcnV2, RankingRows]) -> None:
    model, held_out = fitted
    linear = held_out.rows[:, 2]
    assert held_out_ndcg(predict(model, held_out.rows), held_out) > held_out_ndcg(linear, held_out) + 0.05


def test_its_probabilities_are_calibrated(fitted: tuple[DcnV2, RankingRows]) -> None:
    model, _ = fitted
    fresh = world(100, 9)
    assert metrics.calibration(predict(model, fresh.rows), fresh.labels).ece < 0.06


def test_the_same_seed_gives_the_same_model() -> None:
    train, held_out = world(30, 1), world(10, 2)
    first, second = (fit_dcn(SCHEMA, train, held_out, seed=5, config=SMALL) for _ in range(2))
    assert np.array_equal(predict(first, held_out.rows), predict(second, held_out.rows))


def test_the_exported_graph_agrees_and_takes_any_number_of_rows(
    fitted: tuple[DcnV2, RankingRows], tmp_path: Path
) -> None:
    model, held_out = fitted
    assert export_dcn(model, tmp_path / "dcn.onnx") < 1e-5
    session = onnxruntime.InferenceSession(str(tmp_path / "dcn.onnx"), providers=["CPUExecutionProvider"])
    assert [(i.name, i.shape[1]) for i in session.get_inputs()] == [("rows", len(SCHEMA.columns))]
    for n in (1, 7, 500):
        (score,) = session.run(["score"], {"rows": held_out.rows[:n]})
        assert score.shape == (n,)
        assert np.abs(score - predict(model, held_out.rows[:n])).max() < 1e-5
    wild = np.full((2, len(SCHEMA.columns)), 1e9, np.float32)
    assert np.isfinite(session.run(["score"], {"rows": wild})[0]).all()
    assert [p.name for p in tmp_path.iterdir()] == ["dcn.onnx"]


def test_its_weights_as_arrays_and_the_graph_that_serves_give_the_same_scores(
    fitted: tuple[DcnV2, RankingRows], tmp_path: Path
) -> None:
    model, held_out = fitted
    raw = weights_of(model).logits(held_out.rows)
    assert np.abs(raw - predict(model, held_out.rows, raw=True)).max() < 1e-4
    export_dcn(model, tmp_path / "dcn.onnx")
    choice = write_fast(tmp_path, weights_of(model), held_out.rows)
    assert choice is not None
    assert choice.float32.max_difference < 1e-5
    served = FoldedRanker(open_session(tmp_path / FAST_RANKER)).score(held_out.rows)
    assert np.abs(served - predict(model, held_out.rows)).max() < 1e-5


def test_a_cross_layer_is_x0_times_a_linear_map_plus_x() -> None:
    layer = Cross(2)
    with torch.no_grad():
        layer.linear.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
        layer.linear.bias.copy_(torch.tensor([1.0, 0.0]))
        out = layer(torch.tensor([[2.0, 3.0]]), torch.tensor([[1.0, 1.0]]))
    assert out.tolist() == [[2 * (1 + 2 + 1) + 1, 3 * 1 + 1]]


def test_rows_without_a_positive_still_give_a_model() -> None:
    rows = RankingRows(np.zeros((1, len(SCHEMA.columns)), np.float32), np.zeros(1, np.int8), np.array([0, 1]))
    nobody = rows.take(np.empty(0, np.int64))
    model = fit_dcn(SCHEMA, rows, nobody, seed=0, config=SMALL)
    assert np.isfinite(predict(model, rows.rows)).all()


def test_a_clock_seen_at_few_moments_is_left_out() -> None:
    data = world(4, 0)
    data.rows[:, SCHEMA.at("hour_sin")] = 0.5
    data.rows[::2, SCHEMA.at("hour_sin")] = -0.5
    _, scale = standardise(data.rows, SCHEMA)
    assert scale[SCHEMA.at("hour_sin")] == 0
    assert scale[SCHEMA.at("retrieval")] > 0


def test_taking_users_keeps_their_rows_together() -> None:
    data = world(3, 0)
    taken = data.take(np.array([2, 0]))
    assert np.array_equal(taken.rows[:40], data.rows[80:])
    assert RankingRows.join([taken, data]).indptr.tolist() == [0, 40, 80, 120, 160, 200]


def test_users_of_several_moments_are_joined_as_if_there_were_one() -> None:
    parts = [replace(world(3, 0), user_ids=("a", "b", "c")), replace(world(4, 1), user_ids=("b", "d", "e", "f"))]
    parts[1] = replace(parts[1], gains=np.full(160, 2, np.float32))
    whole = RankingRows.join(parts)
    assert np.array_equal(whole.rows, np.concatenate([part.rows for part in parts]))
    assert whole.gains.tolist() == [1.0] * 120 + [2.0] * 160
    some = RankingRows.join(parts, np.array([1, 3, 6]))
    assert some.user_ids == ("b", "b", "f")
    assert np.array_equal(some.rows, np.concatenate([parts[0].rows[40:80], parts[1].rows[:40], parts[1].rows[120:]]))
    assert np.array_equal(some.labels, whole.take(np.array([1, 3, 6])).labels)
    assert some.gains.tolist() == [1.0] * 40 + [2.0] * 80


def test_platt_finds_slope_and_offset() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=20_000)
    labels = (random.random(20_000) < 1 / (1 + np.exp(-(2 * logits - 1)))).astype(np.int8)
    slope, offset = platt(logits, labels)
    assert slope == pytest.approx(2, abs=0.1)
    assert offset == pytest.approx(-1, abs=0.1)


def test_platt_never_turns_the_order_round() -> None:
    slope, _ = platt(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1, 1, 0, 0]))
    assert slope > 0
    assert platt(np.zeros(4), np.array([1, 0, 0, 0]))[1] < 0


def test_its_loss_follows_what_wishes_are_worth_and_what_errors_cost() -> None:
    """A loss by hand, of two users with two rows each, by a network whose logits are the first column."""
    rows = np.zeros((4, len(SCHEMA.columns)), np.float32)
    rows[:, 0] = 1.0, -1.0, 2.0, 0.5
    gains = np.array([1, 1, 3, 1], np.float32)
    data = RankingRows(rows, np.array([1, 0, 1, 1], np.int8), np.array([0, 2, 4]), (), gains)
    model = DcnV2(SCHEMA, *standardise(rows, SCHEMA), SMALL)
    model.logits = lambda rows: rows[:, 0]  # type: ignore[method-assign]
    weights = torch.from_numpy(data.weights(Costs(false_positive=2, false_negative=1)))
    order = torch.Generator().manual_seed(0)
    found = _loss(model, *_padded(data), weights, torch.from_numpy(data.worth), order, SMALL)
    share = torch.log_softmax(torch.from_numpy(rows[:, 0]).view(2, 2), dim=1)
    listwise = (-share[0, 0] - (3 * share[1, 0] + share[1, 1]) / 4) / 2
    error = torch.nn.functional.softplus(torch.tensor([-1.0, -1.0, -2.0, -0.5]))  # -log p of what was so
    binary = (error * torch.tensor([1, 2, 3, 1])).mean() / (7 / 4)
    assert found.item() == pytest.approx((0.5 * binary + 0.5 * listwise).item(), rel=1e-6)


def test_a_column_that_it_was_not_shown_says_nothing() -> None:
    hidden = ("log_price", "device")
    train, held_out = (world(users, seed).without(SCHEMA, hidden) for users, seed in ((40, 1), (20, 2)))
    model = fit_dcn(SCHEMA, train, held_out, seed=3, config=replace(SMALL, epochs=2))
    seen = world(20, 2).rows
    others = [at for at, name in enumerate(SCHEMA.names) if name not in hidden]
    assert np.array_equal(predict(model, seen), predict(model, held_out.rows))
    assert np.array_equal(seen[:, others], held_out.rows[:, others])
    categorical = [column.name for column in SCHEMA.columns if column.kind == "categorical"]
    assert model.tells_apart == [name != "device" for name in categorical]
