"""int8: close to the plain graph, right on any processor, and the same bits in any batch."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from bentos.recommender.rankers.dcn import FoldedRanker
from tests.unit.models.dcn_rows import drawn_dcn, drawn_rows, opened, opened_plain
from training.models.dcn_fast import agreement
from training.models.dcn_folded import fold, folded_graph
from training.models.dcn_graph import plain_graph
from training.models.dcn_int8 import PAIR, int8_graph, round_weights

ROWS = drawn_rows(12, 20, 5)


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    return int8_graph(drawn_dcn(3, (32, 16)), drawn_rows(20, 50, 0))


@pytest.fixture(scope="module", params=["float32", "int8"])
def ranker(
    request: pytest.FixtureRequest, graph: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory
) -> FoldedRanker:
    model = graph if request.param == "int8" else folded_graph(fold(drawn_dcn(3, (32, 16))))
    return opened(model, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize(("cross_layers", "hidden"), [(1, (16,)), (2, (32, 16)), (3, (64, 32, 16)), (5, (32,))])
def test_it_ranks_as_the_plain_graph_does(cross_layers: int, hidden: tuple[int, ...], tmp_path: Path) -> None:
    weights, rows = drawn_dcn(cross_layers, hidden), drawn_rows(6, 400, 9)
    fast = opened(int8_graph(weights, drawn_rows(20, 100, 0)), tmp_path).score(rows)
    users = np.split(np.arange(len(rows)), 6)
    found = agreement(opened_plain(plain_graph(weights), tmp_path).score(rows), fast, users)
    assert found.overlap >= 0.96  # narrow layers have fewer errors to average than those that are served in int8
    assert found.ndcg_loss < 0.002
    assert found.max_difference < 0.1


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=st.lists(st.integers(0, len(ROWS) - 1), min_size=1, max_size=300))
def test_a_row_has_the_same_bits_alone_and_in_any_batch(ranker: FoldedRanker, chosen: list[int]) -> None:
    alone = {at: ranker.score(ROWS[at : at + 1])[0] for at in set(chosen)}
    assert ranker.score(ROWS[chosen]).tolist() == [alone[at] for at in chosen]


def test_users_side_by_side_score_as_each_by_itself(ranker: FoldedRanker) -> None:
    together = ranker.score(ROWS)
    for start in range(0, len(ROWS), 20):
        assert np.array_equal(together[start : start + 20], ranker.score(ROWS[start : start + 20]))
    mixed = np.random.default_rng(0).permutation(len(ROWS))
    assert np.array_equal(ranker.score(ROWS[mixed]), together[mixed])


def test_no_pair_of_weights_can_saturate_sixteen_bits(graph: onnx.ModelProto) -> None:
    """What AVX2 and AVX-512 without VNNI do with uint8 × int8: two products, one sum in int16."""
    weights = [numpy_helper.to_array(t).astype(np.int64) for t in graph.graph.initializer if t.name.endswith(".weight")]
    assert len(weights) == 5  # two cross maps and a middle layer, two deep layers
    for weight in weights:
        even = np.vstack([weight, np.zeros((len(weight) % 2, weight.shape[1]), np.int64)])
        highest = 255 * (np.maximum(even[0::2], 0) + np.maximum(even[1::2], 0)).max()
        lowest = 255 * (np.minimum(even[0::2], 0) + np.minimum(even[1::2], 0)).min()
        assert lowest >= -(2**15)
        assert highest < 2**15
        assert np.abs(weight).max() > 50  # and the range is used


def test_rounding_makes_up_with_one_input_for_what_another_lost() -> None:
    rng = np.random.default_rng(1)
    common = rng.standard_normal((4000, 1))
    inputs = common + 0.3 * rng.standard_normal((4000, 64))  # inputs that say nearly the same
    weight = rng.standard_normal((64, 20))
    rounded, scale = round_weights(weight, inputs.T @ inputs / len(inputs))
    nearest = np.rint(weight / scale)
    wrong = [np.square(inputs @ (weight - w * scale)).mean() for w in (rounded, nearest)]
    assert wrong[0] < 0.5 * wrong[1]
    assert np.abs(rounded.astype(int)).max() <= 127
    assert PAIR * 255 < 2**15
