"""The plain graph against NumPy, and the folded one against the plain one."""

from pathlib import Path

import numpy as np
import pytest

from features.ranking import FIRST_USER
from tests.unit.models.dcn_rows import SCHEMA, drawn_dcn, drawn_rows, opened, opened_plain
from training.models.dcn_folded import ROWS, fold, folded_graph, order_of
from training.models.dcn_graph import plain_graph

SHAPES = [(1, (8,)), (2, (16, 8)), (3, (32, 16, 8)), (5, (8,))]


def probability(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


@pytest.mark.parametrize(("cross_layers", "hidden"), SHAPES)
def test_the_plain_graph_is_the_formula(cross_layers: int, hidden: tuple[int, ...], tmp_path: Path) -> None:
    weights, rows = drawn_dcn(cross_layers, hidden), drawn_rows(3, 40, 1)
    expected = probability(weights.slope * weights.logits(rows) + weights.offset)
    assert np.abs(opened_plain(plain_graph(weights), tmp_path).score(rows) - expected).max() < 1e-5


@pytest.mark.parametrize(("cross_layers", "hidden"), SHAPES)
def test_folding_changes_scores_by_rounding_alone(cross_layers: int, hidden: tuple[int, ...], tmp_path: Path) -> None:
    weights, rows = drawn_dcn(cross_layers, hidden), drawn_rows(3, 40, 1)
    plain, folded = opened_plain(plain_graph(weights), tmp_path), opened(folded_graph(fold(weights)), tmp_path)
    assert np.abs(plain.score(rows) - folded.score(rows)).max() < 5e-6
    assert plain.score(rows).std() > 0.02


def test_what_lies_outside_the_learnt_range_is_clipped_as_in_the_plain_graph(tmp_path: Path) -> None:
    weights, rows = drawn_dcn(3, (16, 8)), drawn_rows(4, 10, 2)
    dense = weights.n_dense
    rows[:10, :dense] = 1e9
    rows[10:20, :dense] = -1e9
    edge = np.divide(weights.clip, weights.scale, where=weights.scale > 0, out=np.zeros(dense, np.float32))
    rows[20:30, :dense] = weights.mean + np.nextafter(edge, np.float32(np.inf), dtype=np.float32)
    for at, column in enumerate(SCHEMA.columns):
        if column.kind == "categorical":
            rows[30:40, at] = [-7, -1, -0.4, 0, 0.9, column.size - 1, column.size - 0.1, column.size, 1e6, 1e9]
    plain, folded = opened_plain(plain_graph(weights), tmp_path), opened(folded_graph(fold(weights)), tmp_path)
    assert np.isfinite(plain.score(rows)).all()
    assert np.abs(plain.score(rows) - folded.score(rows)).max() < 5e-6


def test_a_scale_of_the_products_costs_nothing(tmp_path: Path) -> None:
    weights, rows = drawn_dcn(4, (16,)), drawn_rows(2, 40, 3)
    scale = np.exp(np.random.default_rng(0).normal(size=weights.width))
    plain, folded = (
        opened_plain(plain_graph(weights), tmp_path),
        opened(folded_graph(fold(weights, ROWS, scale)), tmp_path),
    )
    assert np.abs(plain.score(rows) - folded.score(rows)).max() < 5e-6


def test_the_order_of_coordinates_is_that_of_the_item_then_the_user() -> None:
    weights = drawn_dcn(2, (8,))
    order = order_of(weights, ROWS)
    assert sorted(order) == list(range(weights.width))
    rows = drawn_rows(1, 2, 4)  # one user, two items
    first, second = weights.inputs(rows)[:, order]
    items = fold(weights).items
    assert items == FIRST_USER + 9 + 6
    assert (first[:items] != second[:items]).any()
    assert np.array_equal(first[items:], second[items:])
