"""DCN-V2 as an ONNX graph, layer by layer as the paper has it: `rows` float32 [R, F] → `score` float32 [R]."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from training.models.dcn_weights import DcnWeights, Layer

OPSET = 18
IR_VERSION = 9
MICROSOFT = "com.microsoft"


class Graph:
    """Nodes and constants in the order that they are named. Every method gives the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[np.generic]] = {}

    def constant(self, name: str, values: NDArray[np.generic]) -> str:
        self.constants[name] = np.asarray(values)
        return name

    def node(self, op: str, inputs: Sequence[str], output: str, *, domain: str = "", **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [output], domain=domain, **attributes))
        return output

    def affine(self, x: str, layer: Layer, output: str) -> str:
        """x @ weight + bias."""
        weight, bias = (self.constant(f"{output}.{part}", a) for part, a in zip(("w", "b"), layer, strict=True))
        return self.node("Gemm", [x, weight, bias], output)

    def slice(self, x: str, start: int, end: int, output: str) -> str:
        """Columns [start, end)."""
        where = {"from": start, "to": end, "axis": 1}
        return self.node("Slice", [x, *(self._integers(f"{output}.{k}", v) for k, v in where.items())], output)

    def index(self, rows: str, column: int, size: int, output: str) -> str:
        """A categorical column as int64 [R], clipped to 0 … size - 1."""
        start = self._integers(f"{output}.column", column)
        picked = self.node("Gather", [rows, start], f"{output}.picked", axis=1)
        flat = self.node("Squeeze", [picked, self._integers("axis_1", 1)], f"{output}.flat")
        low, high = (
            self.constant(f"{output}.{name}", np.array(value, np.float32))
            for name, value in (("low", 0), ("high", size - 1))
        )
        clipped = self.node("Clip", [flat, low, high], f"{output}.clipped")
        return self.node("Cast", [clipped], output, to=TensorProto.INT64)

    def _integers(self, name: str, value: int) -> str:
        return self.constant(name, np.array([value], np.int64))

    def model(self, name: str, inputs: dict[str, Sequence[str | int]], output: str) -> onnx.ModelProto:
        """inputs: name → shape, all float32. The output is float32 [R]."""
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in inputs.items()],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["R"])],
            [numpy_helper.from_array(values, key) for key, values in self.constants.items()],
        )
        domains = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=domains, ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        return model


def plain_graph(weights: DcnWeights) -> onnx.ModelProto:
    """Every layer where it stands: the readable reference, and what a GPU runs."""
    graph = Graph()
    dense = graph.slice("rows", 0, weights.n_dense, "dense")
    centred = graph.node("Sub", [dense, graph.constant("mean", weights.mean)], "centred")
    scaled = graph.node("Mul", [centred, graph.constant("scale", weights.scale)], "scaled")
    ends = [graph.constant(n, np.array(v, np.float32)) for n, v in (("low", -weights.clip), ("high", weights.clip))]
    parts = [graph.node("Clip", [scaled, *ends], "standardised")]
    for at, table in enumerate(weights.tables):
        index = graph.index("rows", weights.n_dense + at, len(table), f"index{at}")
        parts.append(graph.node("Gather", [graph.constant(f"table{at}", table), index], f"embedding{at}"))
    first = x = graph.node("Concat", parts, "x0", axis=1)
    for at, layer in enumerate(weights.cross):
        linear = graph.affine(x, layer, f"cross{at}")
        x = graph.node("Add", [graph.node("Mul", [first, linear], f"product{at}"), x], f"x{at + 1}")
    deep = first
    for at, layer in enumerate(weights.deep):
        deep = graph.node("Relu", [graph.affine(deep, layer, f"deep{at}")], f"relu{at}")
    both = graph.node("Concat", [x, deep], "both", axis=1)
    out = weights.slope * weights.out[:, None], np.array([weights.slope * weights.out_bias + weights.offset])
    logit = graph.affine(both, (out[0].astype(np.float32), out[1].astype(np.float32)), "logit")
    flat = graph.node("Squeeze", [logit, graph.constant("axis_1", np.array([1], np.int64))], "flat")
    graph.node("Sigmoid", [flat], "score")
    return graph.model("dcn", {"rows": ["R", weights.n_columns]}, "score")
