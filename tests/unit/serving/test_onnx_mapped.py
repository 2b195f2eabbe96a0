"""Large tables of a model are read from its own file: the same answers, at any alignment of the table in the file."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bentos.recommender.onnx_mapped import LARGE, without_large_tables
from bentos.recommender.onnx_session import open_session
from contracts.errors import ArtifactError

ROWS = np.array([[0, 5, 4_999]])


def write(path, rows=5_000, name="table", raw=True):
    """Gather from a table of `rows` × 128, plus a small vector."""
    table = np.random.default_rng(7).standard_normal((rows, 128)).astype(np.float32)
    stored = (
        numpy_helper.from_array(table, name)
        if raw
        else helper.make_tensor(name, TensorProto.FLOAT, table.shape, table.reshape(-1).tolist())
    )
    graph = helper.make_graph(
        [helper.make_node("Gather", [name, "rows"], ["found"]), helper.make_node("Add", ["found", "small"], ["out"])],
        "g",
        [helper.make_tensor_value_info("rows", TensorProto.INT64, ["B", 3])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["B", 3, 128])],
        [stored, numpy_helper.from_array(np.ones(128, np.float32), "small")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))
    return table


@pytest.mark.parametrize("name", ["t", "ta", "tab", "tabl"])  # a byte more each: all four places in a word
def test_a_mapped_table_gives_what_a_copied_one_gives(tmp_path, name):
    table = write(tmp_path / "m.onnx", name=name)
    slim = without_large_tables(tmp_path / "m.onnx")
    assert len(slim) < 2_000
    (found,) = open_session(tmp_path / "m.onnx", mapped=True).run(None, {"rows": ROWS})
    np.testing.assert_array_equal(found, table[ROWS] + 1)


def test_a_model_without_large_tables_or_with_typed_ones_is_opened_as_it_is(tmp_path):
    write(tmp_path / "small.onnx", rows=LARGE // 128 // 4 - 10)
    assert without_large_tables(tmp_path / "small.onnx") is None
    table = write(tmp_path / "typed.onnx", raw=False)
    assert without_large_tables(tmp_path / "typed.onnx") is None
    (found,) = open_session(tmp_path / "typed.onnx", mapped=True).run(None, {"rows": ROWS})
    np.testing.assert_allclose(found, table[ROWS] + 1)


@pytest.mark.parametrize("damage", [b"", b"not a model", None], ids=["empty", "text", "cut short"])
def test_a_damaged_file_is_an_artifact_error(tmp_path, damage):
    path = tmp_path / "m.onnx"
    write(path)
    path.write_bytes(path.read_bytes()[:1_000_000] if damage is None else damage)
    with pytest.raises(ArtifactError, match=r"m\.onnx"):
        open_session(path, mapped=True)
