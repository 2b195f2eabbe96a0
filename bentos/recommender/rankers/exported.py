"""A ranker as a program of `torch.export`, by PyTorch: for where it is installed. R rows, F columns.

`torch.export.load` trusts its file: it unpickles what the archive says is pickled (also where reading weights only has
failed), evaluates sizes as Python, and calls any function that it can reach by name in the torch package. So the
archive is read here first, and PyTorch gets a new one: weights as plain bytes, sizes that are names or numbers, no
metadata, no samples, and a graph of the operators in `OPERATORS` only. Whatever else there is makes it refused.
"""

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.errors import ArtifactError

MAX_BYTES = 256 << 20
BLOCK = 64  # rows of one call: a product of another shape adds up in another order
ROOT = "ranker"
MODEL = "models/model.json"
WEIGHTS, CONSTANTS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"
SAMPLES = "data/sample_inputs/model.pt"
WEIGHT = re.compile(r"weight_[0-9]+")
HEAD = {"archive_format": b"pt2", "archive_version": b"0", "byteorder": b"little", ".data/version": b"6\n"}
IGNORED = frozenset({*HEAD, ".data/serialization_id"})
NAME = "s[0-9]{1,4}"
SIZE = re.compile(rf"{NAME}|[0-9]{{1,9}}|Symbol\('{NAME}', positive=True, integer=True\)|Integer\([0-9]{{1,9}}\)")
CONTAINERS = frozenset({"builtins.tuple", "builtins.list", "builtins.dict", None})
OPERATORS = frozenset(
    f"torch.ops.aten.{name}"
    for name in (
        "_assert_tensor_metadata.default",
        "add.Tensor",
        "addcmul.default",
        "addmm.default",
        "cat.default",
        "clamp.default",
        "clone.default",
        "div.Tensor",
        "dropout.default",
        "embedding.default",
        "gelu.default",
        "layer_norm.default",
        "linear.default",
        "matmul.default",
        "mean.dim",
        "mul.Tensor",
        "relu.default",
        "reshape.default",
        "select.int",
        "sigmoid.default",
        "slice.Tensor",
        "squeeze.dim",
        "sub.Tensor",
        "sum.dim_IntList",
        "tanh.default",
        "to.dtype",
        "unsqueeze.default",
        "view.default",
    )
)
ARGUMENTS = frozenset(
    f"as_{name}"
    for name in (
        "bool",
        "device",
        "expr",
        "float",
        "int",
        "ints",
        "layout",
        "memory_format",
        "name",
        "none",
        "scalar_type",
        "sym_int",
        "sym_ints",
        "tensor",
        "tensors",
    )
)


class ExportedRanker:
    """rows float32 [R, F] → probabilities float32 [R]."""

    def __init__(self, program: Callable[..., Any], width: int) -> None:
        self._program = program
        self._width = width

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        import torch

        if rows.shape[1:] != (self._width,):
            raise ValueError(f"rows of {rows.shape[1:]}, wanted {self._width} columns")
        padded = np.zeros((-(-len(rows) // BLOCK) * BLOCK, self._width), np.float32)
        padded[: len(rows)] = rows
        with torch.inference_mode():
            parts = [
                self._program(torch.from_numpy(padded[at : at + BLOCK])).numpy().reshape(-1)
                for at in range(0, len(padded), BLOCK)
            ]
        return np.concatenate([*parts, np.empty(0, np.float32)])[: len(rows)]


def open_exported(path: Path, width: int, _threads: int = 1) -> ExportedRanker:
    """
    Raises:
        ArtifactError: PyTorch is not installed, or the file is not a program over rows of `width`, of the few operators
            that a ranker is made of.
    """
    try:
        import torch
    except ImportError as error:
        raise ArtifactError(f"{path} needs PyTorch, which is not installed here; an ONNX graph does not") from error
    try:
        program = torch.export.load(checked(path)).module()
        ranker = ExportedRanker(program, width)
        scores = ranker.score(np.zeros((2, width), np.float32))
        if scores.shape != (2,) or scores.dtype != np.float32:
            raise ValueError(f"it gives {scores.dtype} {scores.shape} for two rows")
    except Exception as error:  # PyTorch raises whatever its parts raise
        raise ArtifactError(f"{path} is not an exported program that may be loaded: {error}") from error
    return ranker


def checked(path: Path) -> io.BytesIO:
    """The archive once more, of what has been looked at only.

    Raises:
        ValueError: it holds more than weights and a graph of the known operators.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"it has over {MAX_BYTES >> 20} MiB")
    with zipfile.ZipFile(path) as archive:
        members = {}
        for info in archive.infolist():
            name = info.filename.partition("/")[2]
            if info.compress_type != zipfile.ZIP_STORED or name in members:
                raise ValueError(f"{name:.60} is compressed, or there twice")
            members[name] = archive.read(info)
    model, weights = json.loads(members[MODEL]), json.loads(members[WEIGHTS])
    weight_files = {_weight(entry) for entry in weights["config"].values()}
    extra = set(members) - IGNORED - {MODEL, WEIGHTS, CONSTANTS, SAMPLES} - {f"data/weights/{w}" for w in weight_files}
    if extra:
        raise ValueError(f"it holds {min(extra)!r:.60}")
    if json.loads(members[CONSTANTS])["config"]:
        raise ValueError("it holds constants that are not weights")
    _check_program(model)
    kept = {
        **HEAD,
        MODEL: json.dumps(model).encode(),
        WEIGHTS: json.dumps(weights).encode(),
        CONSTANTS: b'{"config": {}}',
        SAMPLES: b"",
        **{f"data/weights/{name}": members[f"data/weights/{name}"] for name in weight_files},
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in kept.items():
            archive.writestr(f"{ROOT}/{name}", content)
    file.seek(0)
    return file


def _weight(entry: dict[str, Any]) -> str:
    name = entry["path_name"]
    if entry["use_pickle"] is not False or not WEIGHT.fullmatch(name):
        raise ValueError(f"the weight {name!r:.60} is a pickle, or outside of the archive")
    return str(name)


def _check_program(model: dict[str, Any]) -> None:
    """Takes the metadata out, and lets nothing through that PyTorch would evaluate or look up by name."""
    if model.get("guards_code"):
        raise ValueError("it comes with code of its own")
    graph_module = model["graph_module"]
    graph_module["metadata"] = {}
    if graph_module.get("treespec_namedtuple_fields"):
        raise ValueError("it names types of its own")
    for node in graph_module["graph"]["nodes"]:
        node["metadata"] = {}
        if node["target"] not in OPERATORS:
            raise ValueError(f"it calls {node['target']!r:.80}, which no ranker is made of")
    for name in model.get("range_constraints", {}):
        _check_size(name)
    for key, value in _pairs(model):
        if key == "expr_str":
            _check_size(value)
        elif key in ("in_spec", "out_spec"):
            _check_tree(value)
        elif key.startswith("as_") and key not in ARGUMENTS:
            raise ValueError(f"it has an argument {key!r:.40}, which no ranker needs")


def _check_size(text: Any) -> None:
    if not isinstance(text, str) or not SIZE.fullmatch(text):
        raise ValueError(f"the size {text!r:.40} is neither a name nor a number")


def _check_tree(text: str) -> None:
    """What arguments are packed in: PyTorch would look other types up by name."""
    for key, value in _pairs(json.loads(text)) if text else ():
        if key == "type" and value not in CONTAINERS:
            raise ValueError(f"its arguments are packed in {value!r:.60}")


def _pairs(part: Any) -> Iterator[tuple[str, Any]]:
    """Every key of every object inside, with its value."""
    if isinstance(part, dict):
        yield from part.items()
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from _pairs(inner)
