"""From PyTorch and NumPy to what serves: ONNX that agrees with PyTorch, FAISS that agrees with exact search."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from contracts.errors import ArtifactError

MAX_ONNX_DIFFERENCE = 1e-4
FLAT_UP_TO = 50_000
MIN_RECALL = 0.99
OPSET = 18


def export_onnx(
    model: nn.Module,
    samples: Mapping[str, NDArray[np.generic]],
    output: str,
    path: Path,
) -> float:
    """Write `model` (called with the named inputs, in order) as ONNX whose first axes are free.

    Returns:
        The greatest absolute difference between ONNX Runtime and PyTorch on `samples`, on the first row, on
        two and on all.

    Raises:
        ArtifactError: they differ by more than 1e-4, or what was exported takes no other number of rows.
    """
    model.eval()
    names = list(samples)
    tensors = tuple(torch.from_numpy(np.ascontiguousarray(samples[name])) for name in names)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The tracing exporter: 0.3 s, where the newer one takes 2 to 6 s. What it wrote is checked below all the same.
        torch.onnx.export(
            model,
            tensors,
            str(path),
            input_names=names,
            output_names=[output],
            dynamic_axes={name: {0: "batch"} for name in [*names, output]},
            opset_version=OPSET,
            dynamo=False,
        )
        wanted = model(*tensors).numpy()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for rows in (slice(0, 1), slice(0, 2), slice(None)):
        try:
            (got,) = session.run([output], {name: samples[name][rows] for name in names})
        except Exception as error:  # ONNX Runtime's errors share no base class of its own
            raise ArtifactError(f"{path.name} does not run on {rows.stop or 'all'} rows: {error}") from error
        if got.shape != wanted[rows].shape:
            raise ArtifactError(f"{path.name} gives {got.shape} where PyTorch gives {wanted[rows].shape}")
        worst = max(worst, float(np.abs(got - wanted[rows]).max()))
    if not worst <= MAX_ONNX_DIFFERENCE:
        raise ArtifactError(f"{path.name} differs from PyTorch by {worst:.2g}, more than {MAX_ONNX_DIFFERENCE:g}")
    return worst


@dataclass(frozen=True, slots=True)
class IndexReport:
    """kind: `flat`, `ivf`; recall: share of the exact top 200 that the index finds; nprobe: 0 where it has none."""

    kind: str
    recall_at_200: float
    nprobe: int


def build_index(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], path: Path, seed: int, *, flat_up_to: int = FLAT_UP_TO
) -> IndexReport:
    """Write an inner-product index over `vectors` [N, D]: exact up to `flat_up_to`, above that IVF, probed as widely as
    recall@200 of 0.99 on `queries` [Q, D] needs.

    Raises:
        ArtifactError: that recall is out of reach.
    """
    n, dimension = vectors.shape
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    index: Any
    if n <= flat_up_to:
        index = faiss.IndexFlatIP(dimension)
        index.add(vectors)
        report = IndexReport("flat", 1.0, 0)
    else:
        lists = int(2 ** np.round(np.log2(2 * np.sqrt(n))))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimension), dimension, lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed = seed + 1  # 0 would be the library's own default
        index.train(vectors)
        index.add(vectors)
        exact = exact_top(vectors, queries, 200)
        report = IndexReport("ivf", 0.0, 0)
        probes = 8
        while report.recall_at_200 < MIN_RECALL and report.nprobe < lists:
            index.nprobe = min(probes, lists)
            found = index.search(queries, exact.shape[1])[1]
            report = IndexReport("ivf", overlap(exact, found), index.nprobe)
            probes = int(probes * 1.5)
    if report.recall_at_200 < MIN_RECALL:
        raise ArtifactError(f"{path.name}: recall@200 {report.recall_at_200:.3f} is below {MIN_RECALL}")
    faiss.write_index(index, str(path))
    return report


def exact_top(vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """int64 [Q, min(k, N)]: rows of the greatest inner products, best first, by brute force in NumPy."""
    scores = queries @ vectors.T
    k = min(k, len(vectors))
    top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    return np.take_along_axis(top, np.argsort(-np.take_along_axis(scores, top, 1), axis=1, kind="stable"), 1)


def overlap(exact: NDArray[np.int64], found: NDArray[np.int64]) -> float:
    """Mean share of a row of `exact` that is in the same row of `found`."""
    return float(np.mean([np.isin(e, f).mean() for e, f in zip(exact, found, strict=True)]))
