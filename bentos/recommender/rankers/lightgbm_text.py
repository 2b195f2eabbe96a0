"""Boosted trees in LightGBM's own text format, by LightGBM itself: for where it is installed.

LightGBM's reader trusts its file: a place or an index out of range is read past the end of an array. So the file is
read here, by `read_trees`, and LightGBM gets what `write_trees` makes of the numbers in it. L leaves of one tree.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.errors import ArtifactError

MAX_BYTES = 64 << 20
DEFAULT_LEFT = 2  # the one bit of `decision_type` that a split on numbers without missing values may have
VERSION, OBJECTIVE = "v4", "binary sigmoid:1"


@dataclass(frozen=True, slots=True)
class Tree:
    """Splits 0 … L − 2, the root first, each before its children; left where a value is at most the threshold.

    column, left, right: int64 [L − 1], a child below zero is ~leaf; threshold: float64 [L − 1]; leaf: float64 [L].
    """

    column: NDArray[np.int64]
    threshold: NDArray[np.float64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    leaf: NDArray[np.float64]


class LightgbmRanker:
    """rows float32 [R, F] → probabilities float32 [R], in one thread."""

    def __init__(self, booster: Any, threads: int) -> None:
        self._booster = booster
        self._threads = threads

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        if not len(rows):
            return np.empty(0, np.float32)
        scores = np.asarray(self._booster.predict(rows, num_threads=self._threads), np.float32)
        scores[np.isnan(rows).any(axis=1)] = np.nan  # to LightGBM an unknown is 0
        return scores


def open_lightgbm(path: Path, width: int, threads: int) -> LightgbmRanker:
    """
    Raises:
        ArtifactError: LightGBM is not installed, or the file is not a model of probabilities over rows of `width`.
    """
    try:
        import lightgbm
    except ImportError as error:
        raise ArtifactError(f"{path} needs LightGBM, which is not installed here; its ONNX graph does not") from error
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has over {MAX_BYTES >> 20} MiB")
        trees = read_trees(path.read_text("ascii"), width)
        return LightgbmRanker(lightgbm.Booster(model_str=write_trees(trees, width)), threads)
    except (ValueError, OSError, lightgbm.basic.LightGBMError) as error:
        raise ArtifactError(f"{path} is not a LightGBM model that may be loaded: {error}") from error


def read_trees(text: str, width: int) -> list[Tree]:
    """The trees of a model of one probability, the sigmoid of the sum of a leaf of each tree, over rows of `width`.

    Raises:
        ValueError: it is not one.
    """
    head, *blocks = text.partition("\nend of trees")[0].split("\nTree=")
    fields = _fields(head)
    for name, value in _head(width).items():
        if fields.get(name) != value:
            raise ValueError(f"{name} is {fields.get(name, 'not given')[:40]}, wanted {value}")
    if not blocks:
        raise ValueError("it has no trees")
    return [_tree(_fields(block), number, width) for number, block in enumerate(blocks)]


def write_trees(trees: Iterable[Tree], width: int) -> str:
    """As LightGBM reads them, every number in full."""
    names = " ".join(f"Column_{at}" for at in range(width))
    head = {**_head(width), "label_index": "0", "feature_names": names, "feature_infos": " ".join(["none"] * width)}
    blocks = ["\n".join(["tree", *(f"{name}={value}" for name, value in head.items()), ""])]
    for number, tree in enumerate(trees):
        columns = {
            "split_feature": tree.column,
            "threshold": tree.threshold,
            "decision_type": np.full(len(tree.column), DEFAULT_LEFT),
            "left_child": tree.left,
            "right_child": tree.right,
            "leaf_value": tree.leaf,
        }
        lines = [f"{name}={' '.join(map(repr, values.tolist()))}" for name, values in columns.items()]
        blocks.append("\n".join([f"Tree={number}", f"num_leaves={len(tree.leaf)}", "num_cat=0", *lines, ""]))
    return "\n".join([*blocks, "end of trees", ""])


def _head(width: int) -> dict[str, str]:
    """What a model has to say of itself."""
    return {
        "version": VERSION,
        "num_class": "1",
        "num_tree_per_iteration": "1",
        "max_feature_idx": str(width - 1),
        "objective": OBJECTIVE,
    }


def _fields(block: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in block.split("\n"):
        name, equals, value = line.partition("=")
        if equals and name in found:
            raise ValueError(f"{name[:40]} is given twice")
        found[name] = value
    return found


def _tree(fields: Mapping[str, str], number: int, width: int) -> Tree:
    leaves = int(fields.get("num_leaves", "0"))
    if leaves < 1 or fields.get("num_cat") != "0" or fields.get("is_linear", "0") != "0":
        raise ValueError(f"tree {number} has {leaves} leaves, or splits on categories, or linear leaves")

    def numbers(name: str, length: int, dtype: type) -> NDArray[Any]:
        words: Sequence[str] = fields.get(name, "").split()
        values: NDArray[Any] = np.array(words, dtype)
        if len(values) != length or not np.isfinite(values).all():
            raise ValueError(f"tree {number}: {name} are not {length} finite numbers")
        return values

    if leaves == 1:
        none = np.empty(0, np.int64)
        return Tree(none, np.empty(0), none, none, numbers("leaf_value", 1, np.float64))
    tree = Tree(
        numbers("split_feature", leaves - 1, np.int64),
        numbers("threshold", leaves - 1, np.float64),
        numbers("left_child", leaves - 1, np.int64),
        numbers("right_child", leaves - 1, np.int64),
        numbers("leaf_value", leaves, np.float64),
    )
    if ((tree.column < 0) | (tree.column >= width)).any():
        raise ValueError(f"tree {number} splits on a column outside 0 … {width - 1}")
    if (numbers("decision_type", leaves - 1, np.int64) & ~DEFAULT_LEFT).any():
        raise ValueError(f"tree {number} splits on categories or on missing values")
    # Each split but the root, and each leaf, is the child of one split, which stands before it: a tree, and no more.
    children = np.concatenate([tree.left, tree.right])
    if (
        not np.array_equal(np.sort(children), np.concatenate([np.arange(-leaves, 0), np.arange(1, leaves - 1)]))
        or (
            (tree.left >= 0) & (tree.left <= np.arange(leaves - 1))
            | (tree.right >= 0) & (tree.right <= np.arange(leaves - 1))
        ).any()
    ):
        raise ValueError(f"tree {number} is not a tree")
    return tree
