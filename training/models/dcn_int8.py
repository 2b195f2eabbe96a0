"""The folded DCN-V2 with its large products in int8, which score a row the same alone and in any batch.

Activations are uint8 with scales that were fixed on calibration rows, weights int8 with a scale for each output. Sums
of products are integers: they do not depend on order, batch or number of threads.

- A scale for each *coordinate* of an activation costs nothing where it can be moved into the layers before and after
  (SmoothQuant, Xiao et al. 2023): all of x0 ⊙ t, of the item's inputs and of what a ReLU gives.
- Weights are rounded one input after another, and what is lost is made up for by the inputs that follow, as the
  calibration rows weigh it (GPTQ, Frantar et al. 2023); then the mean error of each output goes into its bias.
- Before VNNI, x86 multiplies uint8 by int8 two at a time and saturates the sum to int16. Rounding keeps each pair of
  weights so small that this cannot happen: the scores are right on any machine, only slower (`PAIR`).

R rows, W width, K inputs of a layer, M outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from training.models.dcn_folded import ROWS, Folded, Inputs, Layout, fold, order_of
from training.models.dcn_graph import MICROSOFT, Graph
from training.models.dcn_weights import DcnWeights, Layer

Floats = NDArray[np.float64]

PAIR = 128  # 255 × 128 < 2**15: what weights 2k and 2k + 1 may add up to, on either side of zero
MIDDLE = 128  # zero point of what has both signs
CROSS_SMOOTHING, SMOOTHING = 0.5, 0.5  # how much of a coordinate's range the activation's scale takes over
HEADROOM = 1.1  # over the widest calibration row, for products: their tails are long
DAMPING = 0.01


@dataclass(frozen=True, slots=True)
class Activation:
    """uint8 = round(value / scale) + zero, clipped. A coordinate's own scale is in the layers around it."""

    scale: float
    zero: int

    def integers(self, values: Floats) -> Floats:
        """Less the zero point."""
        rounded: Floats = np.clip(np.rint(values / self.scale), -self.zero, 255 - self.zero)
        return rounded


@dataclass(frozen=True, slots=True)
class Int8Layer:
    """integers [R, K] @ weight × scale + bias. scale: [M], with the activation's own in it."""

    activation: Activation
    weight: NDArray[np.int8]  # [K, M]
    scale: Floats
    bias: Floats

    def __call__(self, integers: Floats) -> Floats:
        result: Floats = (integers @ self.weight.astype(np.float64)) * self.scale + self.bias
        return result


def int8_graph(weights: DcnWeights, rows: NDArray[np.float32], layout: Layout = ROWS) -> onnx.ModelProto:
    """Inputs and output of `folded_graph`. rows: float32 [R, F], to fix the scales on."""
    return _Int8(weights, rows, layout).model()


def _spread(values: Floats, power: float) -> Floats:
    """[K]: the scale of each coordinate, from the range that it takes on the calibration rows."""
    reach = np.abs(values).max(axis=0)
    scale: Floats = np.maximum(reach, 1e-3 * max(float(reach.max()), 1e-6)) ** power
    return scale


def _two_sided(values: Floats) -> Activation:
    return Activation(max(HEADROOM * float(np.abs(values).max()) / 127, 1e-9), MIDDLE)


def _positive(values: Floats) -> Activation:
    return Activation(max(float(values.max()) / 255, 1e-9), 0)


def quantised(activation: Activation, integers: Floats, weight: Floats, wanted: Floats) -> Int8Layer:
    """weight [K, M] for `integers` [R, K] of the activation; the bias brings the mean to that of `wanted` [R, M]."""
    rounded, scale = round_weights(weight, integers.T @ integers / len(integers))
    layer = Int8Layer(activation, rounded, scale * activation.scale, np.zeros(weight.shape[1]))
    bias = wanted.mean(axis=0) - layer(integers).mean(axis=0)
    return Int8Layer(activation, rounded, layer.scale, bias)


def round_weights(weight: Floats, moments: Floats) -> tuple[NDArray[np.int8], Floats]:
    """int8 [K, M] and the scale [M] of each output. moments: [K, K], the mean of inputs' products.

    In no output do two neighbours 2k and 2k + 1 of one sign add up to more than `PAIR`.
    """
    inputs = len(weight)
    even = weight if inputs % 2 == 0 else np.vstack([weight, np.zeros((1, weight.shape[1]))])
    sides = [np.maximum(side[0::2], 0) + np.maximum(side[1::2], 0) for side in (even, -even)]
    reach = np.maximum(np.maximum(*sides).max(axis=0) / PAIR, np.abs(weight).max(axis=0) / 127)
    scale = np.maximum(reach, 1e-12)

    damped = moments + (DAMPING * np.trace(moments) / inputs + 1e-12) * np.eye(inputs)
    pull = np.linalg.cholesky(np.linalg.inv(damped)).T  # upper: how inputs that follow make up for one
    left = weight.copy()
    result = np.zeros_like(weight)
    for at in range(inputs):
        low, high = -127.0, 127.0
        if at % 2:
            before = result[at - 1]
            low, high = np.maximum(low, -PAIR - np.minimum(before, 0)), np.minimum(high, PAIR - np.maximum(before, 0))
        result[at] = np.clip(np.rint(left[at] / scale), low, high)
        lost = (left[at] - result[at] * scale) / pull[at, at]
        left[at + 1 :] -= np.outer(pull[at, at + 1 :], lost)
    return result.astype(np.int8), scale


class _Int8:
    """Goes through the layers as the rows do, so that each is rounded for the rounded inputs it will get."""

    def __init__(self, weights: DcnWeights, rows: NDArray[np.float32], layout: Layout) -> None:
        self.graph = Graph()
        self.weights = weights
        self.x0: Floats = weights.inputs(rows)[:, order_of(weights, layout)].astype(np.float64)
        exact = fold(weights, layout)
        products = self._products(exact)  # x of each middle layer, in float
        scale = np.max([_spread(x, CROSS_SMOOTHING) for x in products], axis=0) if products else None
        self.folded = fold(weights, layout, scale)
        self.inputs = Inputs(self.graph, self.folded)

    def _products(self, exact: Folded) -> Sequence[Floats]:
        if exact.first_cross is None or not exact.middle:
            return ()
        t = _apply(self.x0, exact.first_cross)
        found = [self.x0 * t]
        for layer in exact.middle[:-1]:
            t = t + _apply(found[-1], layer)
            found.append(self.x0 * t)
        return found

    def model(self) -> onnx.ModelProto:
        self._item_inputs()
        cross = self._cross()
        deep = self._deep()
        self.inputs.score(cross, self.inputs.linear(self.folded.linear, "linear"), deep)
        columns = self.weights.n_columns
        return self.graph.model("dcn_int8", {"rows": ["R", columns], "user": ["U", columns]}, "score")

    def _item_inputs(self) -> None:
        """uint8 [R, items]: what the first layers read, with tables of uint8 in place of the embeddings'.

        Dense columns keep their whole range of ± clip: where it was cut to that of the calibration rows, users unlike
        them were scored 0.2 off.
        """
        layout, graph = self.folded.layout, self.graph
        tables = self.weights.tables[: layout.item_categorical]
        dense = np.full(layout.item_dense, self.weights.clip)
        reach = np.concatenate([dense, *(np.abs(table).max(axis=0) for table in tables)])[None, :]
        self.item_scale = _spread(reach, SMOOTHING)
        self.item = Activation(float((reach / self.item_scale).max()) / 127, MIDDLE)
        self.item_integers = self.item.integers(self.x0[:, : self.folded.items] / self.item_scale)
        of_dense = Activation(self.item.scale * float(self.item_scale[0]), MIDDLE)
        parts = [self._quantise(self.inputs.dense, of_dense, "item_dense.q")]
        at = layout.item_dense
        for number, (table, index) in enumerate(zip(tables, self.inputs.index, strict=True)):
            end = at + table.shape[1]
            integers = self.item.integers(table / self.item_scale[at:end]) + MIDDLE
            name = graph.constant(f"table{number}.q", integers.astype(np.uint8))
            parts.append(graph.node("Gather", [name, index], f"embedding{number}.q"))
            at = end
        self.item_name = graph.node("Concat", parts, "item.q", axis=1)

    def _first(self, layer: Layer, output: str, after: Activation | None = None) -> tuple[str, Floats]:
        """x0 @ weight + bias: the item's part in int8; the user's, in float, is the accumulator's start."""
        items = self.folded.items
        weight, bias = (part.astype(np.float64) for part in layer)
        scaled = self.item_scale[:, None] * weight[:items]
        of_item = quantised(self.item, self.item_integers, scaled, self.x0[:, :items] @ weight[:items])
        start = self.inputs.of_user((layer[0], (bias + of_item.bias).astype(np.float32)), output)
        units = self.graph.constant(f"{output}.units", of_item.scale.astype(np.float32))
        start = self.graph.node("Round", [self.graph.node("Div", [start, units], f"{output}.start")], f"{output}.round")
        start = self.graph.node("Cast", [start], f"{output}.integers", to=TensorProto.INT32)
        name = self._product(self.item_name, of_item, output, start, after)
        return name, of_item(self.item_integers) + self.x0[:, items:] @ weight[items:] + bias

    def _cross(self) -> str:
        """[R, W], whose sum over a row is the cross layers' part of the logit."""
        graph, folded = self.graph, self.folded
        x, values, t = self.inputs.x0, self.x0, ""
        if folded.first_cross is not None:
            t, so_far = self._first(folded.first_cross, "cross0")
            exact = _apply(self.x0, folded.first_cross)
            x, values = graph.node("Mul", [self.inputs.x0, t], "x1"), self.x0 * so_far
            for at, layer in enumerate(folded.middle, start=1):
                step = _apply(self.x0 * exact, layer)
                activation = _two_sided(values)
                integers = activation.integers(values)
                product = quantised(activation, integers, layer[0].astype(np.float64), step)
                name = self._product(self._quantise(x, activation, f"x{at}.q"), product, f"cross{at}")
                t = graph.node("Add", [name, t], f"t{at + 1}")
                so_far, exact = so_far + product(integers), exact + step
                x, values = graph.node("Mul", [self.inputs.x0, t], f"x{at + 1}"), self.x0 * so_far
        last, _ = self._first(folded.last_cross, "last_cross")
        return graph.node("Mul", [x, last], "cross")

    def _deep(self) -> str:
        """float32 [R, the last deep width], after its ReLU. A first layer that is the last one stays in float32."""
        folded = self.folded
        if not folded.deep:
            return self.graph.node("Relu", [self.inputs.linear(folded.first_deep, "deep0")], "deep")
        exact = np.maximum(_apply(self.x0, folded.first_deep), 0)
        scale = _spread(exact, SMOOTHING)
        activation = _positive(exact / scale)
        weight, bias = folded.first_deep
        first = (weight / scale).astype(np.float32), (bias / scale).astype(np.float32)
        name, values = self._first(first, "deep0", activation)
        for at, layer in enumerate(folded.deep, start=1):
            scaled = layer[0].astype(np.float64) * scale[:, None]
            wanted = _apply(exact, layer)
            exact = np.maximum(wanted, 0)
            last = at == len(folded.deep)
            scale = np.ones(scaled.shape[1]) if last else _spread(exact, SMOOTHING)
            after = None if last else _positive(exact / scale)
            integers = activation.integers(values)
            product = quantised(activation, integers, scaled / scale, wanted / scale)
            name, values = self._product(name, product, f"deep{at}", None, after), product(integers)
            activation = after or activation
        return self.graph.node("Relu", [name], "deep")

    def _quantise(self, values: str, to: Activation, output: str) -> str:
        return self.graph.node("QuantizeLinear", [values, *self._scale(output, to)], output)

    def _product(
        self, integers: str, layer: Int8Layer, output: str, start: str | None = None, after: Activation | None = None
    ) -> str:
        """float32 [R, M], or uint8 `after`: its zero point of 0 is the ReLU. start: int32 [1 or R, M] in place of the
        layer's own bias."""
        graph = self.graph
        if start is None:
            start = graph.constant(f"{output}.bias", np.rint(layer.bias / layer.scale).astype(np.int32))
        weight = graph.constant(f"{output}.weight", layer.weight)
        scale = graph.constant(f"{output}.weight_scale", (layer.scale / layer.activation.scale).astype(np.float32))
        zeros = graph.constant(f"{output}.weight_zero", np.zeros(layer.weight.shape[1], np.int8))
        inputs = [integers, *self._scale(f"{output}.in", layer.activation), weight, scale, zeros, start]
        if after is not None:
            inputs += self._scale(f"{output}.out", after)
        return graph.node("QGemm", inputs, output, domain=MICROSOFT)

    def _scale(self, name: str, of: Activation) -> tuple[str, str]:
        scale = self.graph.constant(f"{name}.scale", np.array(of.scale, np.float32))
        return scale, self.graph.constant(f"{name}.zero", np.array(of.zero, np.uint8))


def _apply(x: Floats, layer: Layer) -> Floats:
    result: Floats = x @ layer[0].astype(np.float64) + layer[1]
    return result
