"""A ranker whose probabilities go by isotonic steps, in every file that is written of it.

A graph gets the steps as nodes before its sigmoid, by the formula of bentos/recommender/rankers/steps.py: which line a
row is on is a count of knots, a whole number, so that a row has the same bits beside any others. R rows, K knots.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from bentos.recommender.models import RowScorer
from bentos.recommender.onnx_session import open_session, ort
from bentos.recommender.rankers.dcn import FoldedRanker
from bentos.recommender.rankers.logistic import STEPS, open_logistic
from bentos.recommender.rankers.onnx_graph import OnnxRanker
from bentos.recommender.rankers.steps import Steps
from contracts.errors import ArtifactError
from registry.artifacts import FAST_RANKER
from training.export import MAX_ONNX_DIFFERENCE
from training.models.fitted import Fitted, Rows, Written

OPSET, IR = 18, 9
PREFIX = "steps/"


def stepped(one: Fitted, steps: Steps) -> Fitted:
    """`one` with its log odds carried along `steps`: the same order, other probabilities."""

    def logits(rows: Rows) -> NDArray[np.float32]:
        return steps(one.logits(rows))

    def predict(rows: Rows) -> NDArray[np.float32]:
        return sigmoid(logits(rows))

    def write(folder: Path, rows: Rows) -> Written:
        written = one.write(folder, rows)
        at_the_knots = parity(steps)
        worst = max(_put_in(path, one, steps, rows) for path in sorted(folder.iterdir()))
        return Written({**written.params, "calibration": "isotonic"}, max(written.difference, at_the_knots, worst))

    return Fitted(one.name, logits, predict, one.reads, write)


def sigmoid(log_odds: NDArray[np.float32]) -> NDArray[np.float32]:
    return (1 / (1 + np.exp(-np.clip(log_odds, -60, 60)))).astype(np.float32)


def parity(steps: Steps) -> float:
    """The largest difference of a probability between the nodes and the formula: on, beside and between the knots, and
    far outside of them.

    Raises:
        ArtifactError: it is more than 1e-4, or the nodes fall somewhere where the formula rises.
    """
    nodes, constants = step_nodes(steps, "log_odds", "stepped")
    nodes.append(helper.make_node("Sigmoid", ["stepped"], ["score"]))
    graph = helper.make_graph(
        nodes,
        "steps",
        [helper.make_tensor_value_info("log_odds", TensorProto.FLOAT, ["R"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["R"]) for name in ("stepped", "score")],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wide = np.linspace(float(steps.x[0]) - 20, float(steps.x[-1]) + 20, 4096, dtype=np.float32)
    beside = [np.nextafter(steps.x, np.float32(way)) for way in (-np.inf, np.inf)]
    tried = np.sort(np.concatenate([steps.x, *beside, wide]))
    got, scores = session.run(["stepped", "score"], {"log_odds": tried})
    if (np.diff(got) < 0).any():
        raise ArtifactError("isotonic steps fall in the graph: they would change an order")
    return _close(scores, sigmoid(steps(tried)), "the nodes of isotonic steps")


def step_nodes(steps: Steps, before: str, after: str) -> tuple[list[NodeProto], list[TensorProto]]:
    """Nodes from float32 [R] `before` to float32 [R] `after`, and their constants."""
    arrays = {"x": steps.x, "at_x": steps.at_x, "at_y": steps.at_y, "slope": steps.slope, "most": steps.most}
    constants = [numpy_helper.from_array(values, PREFIX + name) for name, values in arrays.items()]
    constants.append(numpy_helper.from_array(np.array([1]), PREFIX + "axis"))

    def node(op: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:
        given = [name if name == before else PREFIX + name for name in inputs]
        return helper.make_node(op, given, [output if output == after else PREFIX + output], **attributes)

    nodes = [
        node("Unsqueeze", [before, "axis"], "column"),
        node("GreaterOrEqual", ["column", "x"], "passed"),
        node("Cast", ["passed"], "ones", to=TensorProto.INT32),
        node("ReduceSum", ["ones", "axis"], "line", keepdims=0),
        *(node("Gather", [name, "line"], f"{name}.own") for name in ("at_x", "at_y", "slope", "most")),
        node("Sub", [before, "at_x.own"], "run"),
        node("Mul", ["run", "slope.own"], "rise"),
        node("Add", ["rise", "at_y.own"], "risen"),
        node("Min", ["risen", "most.own"], after),
    ]
    return nodes, constants


def _put_in(path: Path, one: Fitted, steps: Steps, rows: Rows) -> float:
    """Put the steps into one file of a ranking bundle; its largest difference on `rows` from what it should say.

    Raises:
        ArtifactError: more than 1e-4, or the file is no ranker's.
    """
    before = _open(path, rows).score(rows)
    part = path.with_name(path.name + ".part")
    if path.suffix == ".npz":
        with np.load(path) as file, part.open("wb") as out:
            arrays: dict[str, Any] = dict(zip(STEPS, (steps.x, steps.y, np.float32(steps.tail)), strict=True))
            np.savez(out, **file, **arrays)
    else:
        model = onnx.load(str(path))
        sigmoid_node = model.graph.node[-1]
        if sigmoid_node.op_type != "Sigmoid":
            raise ArtifactError(f"{path.name} does not end in a sigmoid")
        nodes, constants = step_nodes(steps, sigmoid_node.input[0], PREFIX + "out")
        model.graph.node.pop()
        model.graph.node.extend([*nodes, helper.make_node("Sigmoid", [PREFIX + "out"], list(sigmoid_node.output))])
        model.graph.initializer.extend(constants)
        onnx.save(model, str(part))
    part.rename(path)
    after = _open(path, rows).score(rows)
    # The fast graph may be in int8, which scores a little otherwise by itself: only what the steps did is compared.
    p = np.clip(before.astype(np.float64), 1e-30, 1 - 1e-7)
    own = sigmoid(steps(np.log(p / (1 - p)).astype(np.float32)))
    wanted = own if path.name == FAST_RANKER else sigmoid(steps(one.logits(rows)))
    return _close(after, wanted, path.name)


def _open(path: Path, rows: Rows) -> RowScorer:
    if path.suffix == ".npz":
        return open_logistic(path, rows.shape[1])
    if path.suffix != ".onnx":
        raise ArtifactError(f"{path.name} can have no isotonic steps")
    session = open_session(path)
    return FoldedRanker(session) if path.name == FAST_RANKER else OnnxRanker(session)


def _close(got: NDArray[np.float32], wanted: NDArray[np.float32], what: str) -> float:
    worst = float(np.abs(got - wanted).max(initial=0))
    if not worst <= MAX_ONNX_DIFFERENCE:
        raise ArtifactError(f"{what}: a score differs by {worst:.2g}, more than {MAX_ONNX_DIFFERENCE:g}")
    return worst
