"""DCN-V2 with everything that is linear in x0 folded together: the same scores for a third less arithmetic.

Three maps read x0 alone: the first cross layer, the first deep layer and, because of the last cross layer only
out · x_L is needed, that one too:

    out · (x0 ⊙ (W x + b) + x) = x · (Wᵀ diag(out) x0 + out) + (out ⊙ b) · x0

So they are one map over [dense columns, embeddings], in which an embedding table times its slice is again a table, and
the columns of the user are the same in every row of a request: `user` is one row then. R rows, U users' rows (1 or R).
x is x0 ⊙ t throughout: t = W x0 + b + 1 after the first layer, and each further layer adds W x + b to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from features.ranking import FIRST_USER, ITEM_CATEGORICAL
from training.models.dcn_graph import Graph
from training.models.dcn_weights import Array, DcnWeights, Layer


@dataclass(frozen=True, slots=True)
class Layout:
    """How many of the dense and of the categorical columns are the item's or the pair's; the user's come after them."""

    item_dense: int
    item_categorical: int


ROWS = Layout(FIRST_USER, len(ITEM_CATEGORICAL))


@dataclass(frozen=True, slots=True)
class Folded:
    """x0 in the order [item dense, item embeddings, user dense, user embeddings]; the first `items` are the item's."""

    weights: DcnWeights
    layout: Layout
    items: int
    first_cross: Layer | None  # t; None with one cross layer, which is the last one too
    last_cross: Layer  # what x is multiplied by and summed
    first_deep: Layer
    middle: Sequence[Layer]  # cross layers between first and last
    deep: Sequence[Layer]
    linear: Layer  # [W, 1]: the rest of the logit that is linear in x0
    out: Array  # [last deep width, 1]


def foldable(weights: DcnWeights) -> bool:
    """There is a first layer on both sides."""
    return bool(weights.cross) and bool(weights.deep)


def order_of(weights: DcnWeights, layout: Layout) -> NDArray[np.int64]:
    """int64 [W]: where each coordinate of the folded x0 stands in `weights.inputs`."""
    ends = weights.n_dense + np.concatenate([[0], np.cumsum([table.shape[1] for table in weights.tables])])
    cut = ends[layout.item_categorical]
    spans = [(0, layout.item_dense), (ends[0], cut), (layout.item_dense, weights.n_dense), (cut, ends[-1])]
    return np.concatenate([np.arange(start, end) for start, end in spans])


def fold(weights: DcnWeights, layout: Layout = ROWS, scale: NDArray[np.float64] | None = None) -> Folded:
    """scale: float64 [W] by folded coordinate: t comes out divided by it, which costs nothing and scores the same."""
    order = order_of(weights, layout)
    scale = np.ones(weights.width) if scale is None else scale
    out = weights.slope * weights.out.astype(np.float64)
    out_cross, out_deep = out[: weights.width][order], out[weights.width :, None]
    cross = [(w.astype(np.float64)[order][:, order], b.astype(np.float64)[order]) for w, b in weights.cross]
    (last, last_bias), (deep, deep_bias) = cross[-1], weights.deep[0]
    constant = np.array([weights.slope * weights.out_bias + weights.offset])
    items = layout.item_dense + sum(table.shape[1] for table in weights.tables[: layout.item_categorical])
    if len(cross) == 1:
        scale = np.ones(weights.width)  # t is 1 then
    return Folded(
        weights,
        layout,
        items,
        None if len(cross) == 1 else _layer(cross[0][0] / scale, (cross[0][1] + 1) / scale),
        _layer(out_cross[:, None] * last.T * scale, out_cross * scale),
        _layer(deep.astype(np.float64)[order], deep_bias),
        [_layer(scale[:, None] * w / scale, b / scale) for w, b in cross[1:-1]],
        list(weights.deep[1:]),
        _layer((out_cross * last_bias)[:, None], constant),
        out_deep.astype(np.float32),
    )


def _layer(weight: NDArray[np.floating[Any]], bias: NDArray[np.floating[Any]]) -> Layer:
    return weight.astype(np.float32), bias.astype(np.float32)


class Inputs:
    """The nodes that every folded graph begins with: x0, and its pieces."""

    def __init__(self, graph: Graph, folded: Folded) -> None:
        self.graph, self.folded = graph, folded
        weights, layout = folded.weights, folded.layout
        ends = [graph.constant(n, np.array(v, np.float32)) for n, v in (("low", -weights.clip), ("high", weights.clip))]
        self.dense = graph.node("Clip", [self._standardise("rows", 0, layout.item_dense), *ends], "item_dense")
        user_dense = self._standardise("user", layout.item_dense, weights.n_dense)
        user = [graph.node("Clip", [user_dense, *ends], "user_dense")]
        self.index = []  # of the item's categorical columns
        self.embeddings = []
        for at, table in enumerate(weights.tables):
            of_item = at < layout.item_categorical
            index = graph.index("rows" if of_item else "user", weights.n_dense + at, len(table), f"index{at}")
            embedding = graph.node("Gather", [graph.constant(f"table{at}", table), index], f"embedding{at}")
            if of_item:
                self.index.append(index)
                self.embeddings.append(embedding)
            else:
                user.append(embedding)
        self.user = graph.node("Concat", user, "user_x0", axis=1)  # [U, W - items]
        rows = graph.node("Shape", ["rows"], "row_count", end=1)
        width = graph.constant("user_width", np.array([weights.width - folded.items], np.int64))
        shape = graph.node("Concat", [rows, width], "user_shape", axis=0)
        repeated = graph.node("Expand", [self.user, shape], "user_rows")
        self.x0 = graph.node("Concat", [self.dense, *self.embeddings, repeated], "x0", axis=1)

    def _standardise(self, rows: str, start: int, end: int) -> str:
        """Not clipped."""
        weights, graph = self.folded.weights, self.graph
        mean = graph.constant(f"{rows}.mean", weights.mean[start:end])
        scale = graph.constant(f"{rows}.scale", weights.scale[start:end])
        dense = graph.slice(rows, start, end, f"{rows}.dense")
        return graph.node("Mul", [graph.node("Sub", [dense, mean], f"{rows}.centred"), scale], f"{rows}.standardised")

    def of_user(self, layer: Layer, output: str) -> str:
        """The user's part of x0 @ weight + bias, float32 [U, out]."""
        return self.graph.affine(self.user, (layer[0][self.folded.items :], layer[1]), f"{output}.user")

    def linear(self, layer: Layer, output: str) -> str:
        """x0 @ weight + bias, float32 [R, out]: one small product, and a row of a table for each embedding."""
        graph, weight = self.graph, layer[0]
        at = self.folded.layout.item_dense
        dense = graph.constant(f"{output}.dense", weight[:at])
        x = graph.node("Gemm", [self.dense, dense, self.of_user(layer, output)], f"{output}.0")
        for number, index in enumerate(self.index):
            table = self.folded.weights.tables[number]
            part = table.astype(np.float64) @ weight[at : at + table.shape[1]].astype(np.float64)
            at += table.shape[1]
            folded = graph.constant(f"{output}.table{number}", part.astype(np.float32))
            found = graph.node("Gather", [folded, index], f"{output}.found{number}")
            x = graph.node("Add", [x, found], f"{output}.{number + 1}")
        return x

    def score(self, cross: str, linear: str, deep: str) -> None:
        """sigmoid of cross [R, W] summed + linear [R, 1] + deep [R, D] @ out."""
        graph, width = self.graph, self.folded.weights.width
        # A product, not a ReduceSum: how that adds up a row depends on where in memory the row begins.
        ones = graph.constant("ones", np.ones((width, 1), np.float32))
        rest = graph.node("Gemm", [cross, ones, linear], "without_deep")
        logit = graph.node("Gemm", [deep, graph.constant("out", self.folded.out), rest], "logit")
        axis = graph.constant("axis_1", np.array([1], np.int64))
        graph.node("Sigmoid", [graph.node("Squeeze", [logit, axis], "flat")], "score")


def folded_graph(folded: Folded) -> onnx.ModelProto:
    """`rows` float32 [R, F], `user` float32 [U, F] → `score` float32 [R]. Differs from `plain_graph` by rounding."""
    graph = Graph()
    inputs = Inputs(graph, folded)
    x, t = inputs.x0, ""
    if folded.first_cross is not None:
        t = inputs.linear(folded.first_cross, "cross0")
        x = graph.node("Mul", [inputs.x0, t], "x1")
    for at, layer in enumerate(folded.middle, start=1):
        t = graph.node("Add", [graph.affine(x, layer, f"cross{at}"), t], f"t{at + 1}")
        x = graph.node("Mul", [inputs.x0, t], f"x{at + 1}")
    cross = graph.node("Mul", [x, inputs.linear(folded.last_cross, "last_cross")], "cross")
    deep = graph.node("Relu", [inputs.linear(folded.first_deep, "deep0")], "relu0")
    for at, layer in enumerate(folded.deep, start=1):
        deep = graph.node("Relu", [graph.affine(deep, layer, f"deep{at}")], f"relu{at}")
    inputs.score(cross, inputs.linear(folded.linear, "linear"), deep)
    columns = folded.weights.n_columns
    return graph.model("dcn_folded", {"rows": ["R", columns], "user": ["U", columns]}, "score")
