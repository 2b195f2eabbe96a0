"""Which graph is written beside the plain one, and what is told of it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from registry.artifacts import FAST_RANKER
from tests.unit.models.dcn_rows import drawn_dcn, drawn_rows
from training.models import dcn_fast
from training.models.dcn_fast import Choice, agreement, write_fast
from training.models.dcn_graph import plain_graph
from training.models.dcn_weights import DcnWeights

ROWS = drawn_rows(24, 120, 3)


def written(folder: Path, weights: DcnWeights, rows: np.ndarray = ROWS) -> Choice | None:
    onnx.save(plain_graph(weights), str(folder / "dcn.onnx"))
    return write_fast(folder, weights, rows)


def arithmetic(folder: Path) -> str:
    ops = {node.op_type for node in onnx.load(str(folder / FAST_RANKER)).graph.node}
    return "int8" if "QGemm" in ops else "float32"


def test_a_small_model_stays_in_float32(tmp_path: Path) -> None:
    choice = written(tmp_path, drawn_dcn(2, (16,)))
    assert choice is not None
    assert (choice.arithmetic, choice.int8, arithmetic(tmp_path)) == ("float32", None, "float32")
    assert choice.float32.max_difference < 1e-5
    assert choice.float32.users == 24


def test_a_large_one_takes_int8_and_its_figures_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dcn_fast, "INT8_FROM", 0)
    choice = written(tmp_path, drawn_dcn(3, (64, 32)))
    assert choice is not None
    assert (choice.arithmetic, arithmetic(tmp_path)) == ("int8", "int8")
    assert choice.int8 is not None
    assert choice.int8.users == 12
    assert 0.98 <= choice.int8.overlap <= 1
    assert choice.params["int8"]["max_difference"] == choice.int8.max_difference  # type: ignore[index]


def test_int8_that_ranks_differently_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(weights: DcnWeights, rows: np.ndarray) -> onnx.ModelProto:
        model = dcn_fast.folded_graph(dcn_fast.fold(weights))
        out = next(t for t in model.graph.initializer if t.name == "out")
        out.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(out), "out"))
        return model

    monkeypatch.setattr(dcn_fast, "INT8_FROM", 0)
    monkeypatch.setattr(dcn_fast, "int8_graph", broken)
    choice = written(tmp_path, drawn_dcn(2, (16,)))
    assert choice is not None
    assert (choice.arithmetic, arithmetic(tmp_path)) == ("float32", "float32")
    assert choice.int8 is not None
    assert choice.int8.overlap < 0.9
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dcn.onnx", FAST_RANKER]


@pytest.mark.parametrize(("users", "each"), [(1, 1), (3, 120), (40, 30)])
def test_int8_is_not_taken_on_too_little_to_check_it(
    users: int, each: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dcn_fast, "INT8_FROM", 0)
    choice = written(tmp_path, drawn_dcn(2, (16,)), drawn_rows(users, each, 3))
    assert choice is not None
    assert choice.arithmetic == "float32"
    assert "users to check int8 on" in choice.why


def test_a_model_without_a_deep_layer_has_the_plain_graph_alone(tmp_path: Path) -> None:
    weights = drawn_dcn(2, (16,))
    bare = DcnWeights(
        *(weights.mean, weights.scale, weights.clip, weights.tables, weights.cross, []),
        out=np.zeros(2 * weights.width, np.float32),
        out_bias=0.0,
    )
    assert written(tmp_path, bare) is None
    assert not (tmp_path / FAST_RANKER).exists()


def test_agreement_is_counted_over_users_with_more_than_fifty_candidates() -> None:
    plain = np.linspace(1, 0.01, 100).astype(np.float32)
    fast = plain.copy()
    fast[[0, 99]] = fast[[99, 0]]  # the best comes last, the last first
    users = [np.arange(100), np.arange(50)]
    found = agreement(plain, fast, users)
    assert found.users == 1
    assert found.overlap == pytest.approx(49 / 50)
    discount = 1 / np.log2(np.arange(50) + 2)
    ideal = plain[:50] @ discount
    assert found.ndcg_loss == pytest.approx(0.99 * discount[0] / ideal, rel=1e-4)
    assert found.max_difference == pytest.approx(0.99)
