"""Trees and DCN-V2 together: the mean of their calibrated log odds, calibrated again, as one graph.

They read the same rows and err apart: docs/models.md. R rows, F columns.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper

from bentos.recommender.onnx_session import open_session
from contracts.errors import ArtifactError
from training.export import MAX_ONNX_DIFFERENCE
from training.models.dcn_v2 import DcnV2, RankingRows, export_dcn, platt, predict
from training.models.fitted import Fitted, Written
from training.models.trees import Trees, hard_rows, trees_graph

NAMES = ("trees", "dcn")


class Ensemble:
    """rows float32 [R, F] → sigmoid(slope × mean of both models' log odds + offset)."""

    def __init__(self, trees: Trees, dcn: DcnV2, held_out: RankingRows) -> None:
        """held_out: rows of other users, to calibrate on; without positives the mean stands as it is."""
        self.trees, self.dcn = trees, dcn
        self.slope, self.offset = 1.0, 0.0
        if held_out.labels.any():
            self.slope, self.offset = platt(self.mean(held_out.rows), held_out.labels)

    def mean(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        slope, offset = self.dcn.calibration.tolist()
        network = slope * predict(self.dcn, rows, raw=True) + offset
        return np.asarray((self.trees.logits(rows) + network) / 2, np.float32)

    def logits(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return (self.slope * self.mean(rows) + self.offset).astype(np.float32)

    def predict(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return (1 / (1 + np.exp(-self.logits(rows)))).astype(np.float32)


def of_both(trees: Trees, dcn: DcnV2, held_out: RankingRows) -> Fitted:
    """The ensemble among the other rankers."""
    model = Ensemble(trees, dcn, held_out)
    reads = trees.reads | np.array([*(dcn.scale > 0).tolist(), *dcn.tells_apart])

    def write(folder: Path, rows: NDArray[np.float32]) -> Written:
        return Written({"format": "onnx"}, export_ensemble(model, folder / "ensemble.onnx", rows))

    return Fitted("ensemble", model.logits, model.predict, reads, write)


def export_ensemble(model: Ensemble, path: Path, rows: NDArray[np.float32]) -> float:
    """Write `rows` float32 [R, F] → `score` float32 [R] by rename; the largest difference from the two models.

    Raises:
        ArtifactError: they differ by more than 1e-4.
    """
    with tempfile.TemporaryDirectory(prefix="streamrec-export-") as folder:
        export_dcn(model.dcn, Path(folder) / "dcn.onnx")
        network = onnx.load(str(Path(folder) / "dcn.onnx"))
    part = path.with_name(path.name + ".part")
    onnx.save(_graph(model, network), str(part))
    session = open_session(part)
    tried = np.concatenate([rows[:: max(len(rows) // 512, 1)], hard_rows(model.trees)])
    (scores,) = session.run(None, {"rows": tried})
    worst = float(np.abs(scores - model.predict(tried)).max())
    if not worst <= MAX_ONNX_DIFFERENCE:
        raise ArtifactError(f"{path.name} differs from its models by {worst:.2g}, more than {MAX_ONNX_DIFFERENCE:g}")
    part.rename(path)
    return worst


def _graph(model: Ensemble, network: onnx.ModelProto) -> onnx.ModelProto:
    """Both graphs over one input, and what makes a probability of their two."""
    parts = [
        compose.add_prefix_graph(graph.graph, f"{name}/")
        for name, graph in zip(NAMES, (trees_graph(model.trees), network), strict=True)
    ]
    if any(part.node[-1].op_type != "Sigmoid" for part in parts):
        raise ArtifactError("a graph of the ensemble does not end in a sigmoid")
    nodes = [helper.make_node("Identity", ["rows"], [f"{name}/rows"]) for name in NAMES]
    for part in parts:
        nodes += part.node[:-1]  # without the sigmoid: what goes into it are the log odds
    log_odds = [part.node[-1].input[0] for part in parts]
    nodes += [
        helper.make_node("Add", log_odds, ["both"]),
        helper.make_node("Mul", ["both", "half_slope"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["score"]),
    ]
    numbers = {"half_slope": model.slope / 2, "offset": model.offset}
    constants = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in numbers.items()]
    columns = network.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    graph = helper.make_graph(
        nodes,
        "ensemble",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["batch", columns])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch"])],
        [*(weight for part in parts for weight in part.initializer), *constants],
    )
    wanted = {o.domain: o.version for o in trees_graph(model.trees).opset_import} | {
        o.domain: o.version for o in network.opset_import
    }
    opsets = [helper.make_opsetid(domain, version) for domain, version in wanted.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=max(9, network.ir_version))
