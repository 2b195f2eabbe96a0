"""Every format of a ranker's file keeps the one contract of rankers, and no file is believed that should not be."""

import io
import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from bentos.recommender.models import RowScorer
from bentos.recommender.onnx_session import open_session
from bentos.recommender.rankers.dcn import FoldedRanker
from bentos.recommender.rankers.formats import FORMATS
from bentos.recommender.rankers.lightgbm_text import write_trees
from bentos.recommender.rankers.steps import Steps
from contracts.errors import ArtifactError
from registry.artifacts import FAST_RANKER
from tests.unit.leakage.leaky_rows import SCHEMA, honest_rows
from training.models.dcn_fast import write_fast
from training.models.dcn_v2 import DcnConfig, DcnV2, export_dcn, predict, standardise, weights_of
from training.models.ensemble import Ensemble, export_ensemble, of_both
from training.models.fitted import Fitted, of_dcn, of_logistic
from training.models.logistic import Logistic, fit_logistic
from training.models.stepped import stepped
from training.models.trees import Trees, TreesConfig, export_trees, fit_trees

WIDTH = len(SCHEMA.columns)
DATA = honest_rows(users=40, each=30, seed=5)
ROWS = DATA.rows


@dataclass(frozen=True, slots=True)
class Made:
    """One adapter's file and the answers of the model that it was written from."""

    path: Path
    open: Callable[[Path], RowScorer]
    reference: NDArray[np.float32]


def of_format(name: str) -> Callable[[Path], RowScorer]:
    return lambda path: FORMATS[name].open(path, WIDTH, 1)


def of_fast(path: Path) -> RowScorer:
    return FoldedRanker(open_session(path))


def on_steps(one: Fitted, folder: Path) -> NDArray[np.float32]:
    """Written to `folder` with steps in its calibration; what it should say of `ROWS`."""
    folder.mkdir()
    middle = np.quantile(one.logits(ROWS), [0.1, 0.5, 0.8, 0.95, 0.99])
    both = stepped(one, Steps(middle, np.array([-6, -4, -3.9, -1, 0.5]), tail=1.0))
    assert both.write(folder, ROWS).params["calibration"] == "isotonic"
    return both.predict(ROWS)


@pytest.fixture(scope="module")
def dcn() -> DcnV2:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = DcnV2(SCHEMA, *standardise(ROWS, SCHEMA), DcnConfig(cross_layers=1, hidden=(16,)))
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def trees() -> Trees:
    config = TreesConfig(rounds=20, leaves=8, learning_rate=0.2, min_rows_in_leaf=20)
    return fit_trees(SCHEMA, DATA, honest_rows(users=10, each=30, seed=6), seed=0, config=config)


@pytest.fixture(scope="module")
def logistic() -> Logistic:
    return fit_logistic(SCHEMA, DATA, DATA, seed=0)


@pytest.fixture(scope="module")
def files(dcn: DcnV2, trees: Trees, logistic: Logistic, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    folder = tmp_path_factory.mktemp("rankers")
    export_dcn(dcn, folder / "dcn.onnx")
    write_fast(folder, weights_of(dcn), ROWS)
    batch = torch.export.Dim("batch")
    program = torch.export.export(dcn, (torch.from_numpy(ROWS[:8]),), dynamic_shapes=({0: batch},))
    torch.export.save(program, folder / "dcn.pt2")
    export_trees(trees, folder / "trees.onnx", ROWS)
    (folder / "trees.txt").write_text(write_trees(trees.trees, WIDTH))
    both = Ensemble(trees, dcn, DATA)
    export_ensemble(both, folder / "ensemble.onnx", ROWS)
    logistic.save(folder / "linear.npz")
    rankers = (of_logistic(logistic, SCHEMA), of_dcn(dcn), of_both(trees, dcn, DATA))
    by_steps = {one.name: on_steps(one, folder / one.name) for one in rankers}
    by_dcn, by_trees = predict(dcn, ROWS), trees.predict(ROWS)
    return {
        "DCN-V2, plain": Made(folder / "dcn.onnx", of_format("onnx"), by_dcn),
        "DCN-V2, folded": Made(folder / FAST_RANKER, of_fast, by_dcn),
        "DCN-V2, exported": Made(folder / "dcn.pt2", of_format("torch"), by_dcn),
        "trees, ONNX": Made(folder / "trees.onnx", of_format("onnx"), by_trees),
        "trees, LightGBM": Made(folder / "trees.txt", of_format("lightgbm"), by_trees),
        "trees and DCN-V2": Made(folder / "ensemble.onnx", of_format("onnx"), both.predict(ROWS)),
        "linear": Made(folder / "linear.npz", of_format("numpy"), logistic.predict(ROWS)),
        "linear on steps": Made(folder / "linear" / "linear.npz", of_format("numpy"), by_steps["linear"]),
        "DCN-V2 on steps": Made(folder / "dcn" / "dcn.onnx", of_format("onnx"), by_steps["dcn"]),
        "DCN-V2 on steps, folded": Made(folder / "dcn" / FAST_RANKER, of_fast, by_steps["dcn"]),
        "trees and DCN-V2 on steps": Made(
            folder / "ensemble" / "ensemble.onnx", of_format("onnx"), by_steps["ensemble"]
        ),
    }


ADAPTERS = (
    "DCN-V2, plain",
    "DCN-V2, folded",
    "DCN-V2, exported",
    "trees, ONNX",
    "trees, LightGBM",
    "trees and DCN-V2",
    "linear",
    "linear on steps",
    "DCN-V2 on steps",
    "DCN-V2 on steps, folded",
    "trees and DCN-V2 on steps",
)


@pytest.fixture(params=ADAPTERS)
def made(request: pytest.FixtureRequest, files: dict[str, Made]) -> Made:
    return files[request.param]


@pytest.fixture
def scorer(made: Made) -> RowScorer:
    return made.open(made.path)


def test_every_format_is_tried(files: dict[str, Made]) -> None:
    assert tuple(files) == ADAPTERS
    assert {made.path.suffix for made in files.values()} == {form.suffix for form in FORMATS.values()}


def test_it_gives_the_probabilities_of_the_model_that_it_was_written_from(made: Made, scorer: RowScorer) -> None:
    scores = scorer.score(ROWS)
    assert scores.dtype == np.float32
    assert np.abs(scores - made.reference).max() < 1e-5
    assert len(np.unique(scores)) > 50


def test_a_row_scores_the_same_bits_alone_and_beside_any_others(scorer: RowScorer) -> None:
    whole = scorer.score(ROWS)
    order = np.random.default_rng(1).permutation(len(ROWS))
    assert np.array_equal(scorer.score(ROWS[order]), whole[order])
    for size in (1, 2, 3, 17, 64, 129, 500):
        assert np.array_equal(scorer.score(ROWS[:size]), whole[:size])
    alone = np.concatenate([scorer.score(ROWS[at : at + 1]) for at in range(0, len(ROWS), 7)])
    assert np.array_equal(alone, whole[::7])


def test_no_rows_give_no_scores(scorer: RowScorer) -> None:
    scores = scorer.score(np.empty((0, WIDTH), np.float32))
    assert (scores.shape, scores.dtype) == ((0,), np.float32)


@pytest.mark.parametrize("width", [1, WIDTH - 1, WIDTH + 1])
def test_rows_of_another_width_raise(width: int, scorer: RowScorer) -> None:
    with pytest.raises(Exception, match=r".+"):
        scorer.score(np.zeros((3, width), np.float32))


@pytest.mark.parametrize("column", ["category_share", "log_price"])
def test_an_unknown_in_a_row_is_no_plausible_score(column: str, scorer: RowScorer) -> None:
    rows = ROWS[:9].copy()
    rows[4, SCHEMA.at(column)] = np.nan
    try:
        scores = scorer.score(rows)
    except Exception:
        return  # the next scorer of the chain takes over
    assert not np.isfinite(scores[4])


def test_very_large_values_have_a_score(scorer: RowScorer) -> None:
    rows = ROWS[:4].copy()
    rows[:, SCHEMA.at("category_share")] = [-1e30, -1e3, 1e3, 1e30]
    assert np.isfinite(scorer.score(rows)).all()


@pytest.mark.parametrize("how", ["no file", "empty", "garbage", "half"])
def test_a_torn_file_is_an_artifact_error(how: str, made: Made, tmp_path: Path) -> None:
    path = tmp_path / made.path.name
    content = made.path.read_bytes()
    if how != "no file":
        path.write_bytes({"empty": b"", "garbage": b"\x00garbage" * 999, "half": content[: len(content) // 2]}[how])
    with pytest.raises(ArtifactError, match=path.name):
        made.open(path)


@pytest.mark.parametrize("form", list(FORMATS))
def test_a_model_of_rows_of_another_width_is_refused_when_it_is_opened(form: str, files: dict[str, Made]) -> None:
    path = next(made.path for made in files.values() if made.path.suffix == FORMATS[form].suffix)
    with pytest.raises(ArtifactError):
        FORMATS[form].open(path, WIDTH + 1, 1)


# --- hostile files ----------------------------------------------------------------------------------------------------


class Canary:
    """What a pickle would do: leave a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self._path,))


def test_an_array_file_with_a_pickle_is_refused(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    arrays = dict.fromkeys(("mean", "scale", "weights", "bias"), np.array([Canary(canary)], object))
    np.savez(tmp_path / "linear.npz", **arrays)
    with pytest.raises(ArtifactError):
        FORMATS["numpy"].open(tmp_path / "linear.npz", WIDTH, 1)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("line", "becomes"),
    [
        ("left_child", "99999999"),
        ("left_child", "0"),
        ("right_child", "-99999999"),
        ("split_feature", "99999999"),
        ("split_feature", "-1"),
        ("decision_type", "1"),
        ("threshold", "nan"),
        ("leaf_value", "inf"),
        ("num_leaves", "1000000000"),
        ("num_leaves", "-5"),
        ("num_cat", "1"),
        ("max_feature_idx", "100000"),
    ],
)
def test_trees_that_point_outside_of_themselves_are_refused(
    line: str, becomes: str, files: dict[str, Made], tmp_path: Path
) -> None:
    text = files["trees, LightGBM"].path.read_text()
    hostile = re.sub(rf"(\n{line}=)\S+", rf"\g<1>{becomes}", text, count=1)
    assert hostile != text
    (tmp_path / "trees.txt").write_text(hostile)
    with pytest.raises(ArtifactError):
        FORMATS["lightgbm"].open(tmp_path / "trees.txt", WIDTH, 1)


def test_places_in_the_file_that_lightgbm_would_jump_to_are_not_passed_on(
    files: dict[str, Made], tmp_path: Path
) -> None:
    made, path = files["trees, LightGBM"], tmp_path / "trees.txt"
    path.write_text(made.path.read_text().replace("\n\nTree=0", "\ntree_sizes=9999999999\n\nTree=0", 1))
    assert "tree_sizes" in path.read_text()
    assert np.array_equal(made.open(path).score(ROWS), made.open(made.path).score(ROWS))


@pytest.mark.parametrize("how", ["a column outside", "a child outside", "a file elsewhere", "an unknown operator"])
def test_a_graph_that_reaches_outside_of_itself_is_refused(how: str, files: dict[str, Made], tmp_path: Path) -> None:
    graph = onnx.load(str(files["trees, ONNX"].path))
    ensemble = next(node for node in graph.graph.node if node.op_type == "TreeEnsembleRegressor")
    attribute = {a.name: a for a in ensemble.attribute}
    match how:
        case "a column outside":
            attribute["nodes_featureids"].ints[0] = 10**9
        case "a child outside":
            attribute["nodes_truenodeids"].ints[0] = 10**9
        case "a file elsewhere":
            (tmp_path / "secret").write_bytes(bytes(8))
            zero = next(t for t in graph.graph.initializer if t.name == "columns")
            zero.CopyFrom(numpy_helper.from_array(np.array([1]), "columns"))
            onnx.external_data_helper.set_external_data(zero, location="../secret")
            zero.ClearField("raw_data")
            zero.data_location = onnx.TensorProto.EXTERNAL
        case "an unknown operator":
            graph.graph.node.append(helper.make_node("Run", ["rows"], ["x"], domain="elsewhere"))
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "trees.onnx"
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(Exception, match=r".+"):  # at the latest when it is asked: the next scorer takes over
        FORMATS["onnx"].open(path, WIDTH, 1).score(ROWS[:3])


@pytest.mark.parametrize(
    "how", ["samples", "weight", "constant", "operator", "code", "size", "range", "type", "library", "string", "twice"]
)
def test_an_exported_program_with_more_than_weights_and_known_operators_is_refused(
    how: str, files: dict[str, Made], tmp_path: Path
) -> None:
    """`torch.export.load` alone would run most of these."""
    canary, path = tmp_path / "canary", tmp_path / "dcn.pt2"
    pickled = io.BytesIO()
    torch.save((Canary(canary),), pickled)
    with zipfile.ZipFile(files["DCN-V2, exported"].path) as archive:
        parts = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    program = json.loads(parts["models/model.json"])
    weights = json.loads(parts["data/weights/model_weights_config.json"])
    nodes = program["graph_module"]["graph"]["nodes"]
    code = f"open({str(canary)!r}, 'w')"
    match how:
        case "samples":
            parts["data/sample_inputs/model.pt"] = pickled.getvalue()
        case "weight":
            first = next(iter(weights["config"].values()))
            first["use_pickle"] = True
            parts[f"data/weights/{first['path_name']}"] = pickled.getvalue()
        case "constant":
            entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
            parts["data/constants/model_constants_config.json"] = json.dumps({"config": {"x": entry}}).encode()
            parts["data/constants/opaque_obj_0"] = pickled.getvalue()
        case "operator":
            nodes[0]["target"] = "torch.os.system"
        case "code":
            program["guards_code"] = [code]
        case "size":
            _set(program, "expr_str", code)
        case "range":
            program["range_constraints"] = {code: {"min_val": 0, "max_val": None}}
        case "type":
            _set(program, "in_spec", '[1, {"type": "posix.DirEntry", "context": "null", "children_spec": []}]')
        case "library":
            parts["data/aotinductor/model/evil.so"] = b"\x7fELF"
        case "string":
            nodes[0]["inputs"][0]["arg"] = {"as_string": str(canary)}
    parts["models/model.json"] = json.dumps(program).encode()
    parts["data/weights/model_weights_config.json"] = json.dumps(weights).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(f"dcn/{name}", content)
        if how == "twice":
            archive.writestr("other/models/model.json", parts["models/model.json"])
    if how == "samples":  # they are left out: nothing is missed
        assert np.array_equal(
            of_format("torch")(path).score(ROWS[:5]), files["DCN-V2, exported"].open(path).score(ROWS[:5])
        )
    else:
        with pytest.raises(ArtifactError, match="may be loaded"):
            FORMATS["torch"].open(path, WIDTH, 1)
    assert not canary.exists()


def _set(part: Any, key: str, value: str) -> None:
    """The first `key` inside becomes `value`."""
    waiting = [part]
    while waiting:
        at = waiting.pop()
        if isinstance(at, dict) and key in at:
            at[key] = value
            return
        waiting += at.values() if isinstance(at, dict) else at if isinstance(at, list) else []
    raise LookupError(key)
