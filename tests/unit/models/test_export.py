from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from torch import nn

from contracts.errors import ArtifactError
from training.export import build_index, exact_top, export_onnx, overlap


def unit(n: int, seed: int, dimension: int = 16) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, dimension)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_export_reports_how_far_onnx_is_from_pytorch(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    assert export_onnx(model, {"input": x}, "output", tmp_path / "m.onnx") <= 1e-4


def test_export_refuses_a_model_that_onnx_does_not_reproduce(tmp_path: Path) -> None:
    class Forgetful(nn.Module):
        """Tracing freezes what depends on the number of rows."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.zeros(x.numpy().shape)

    with pytest.raises(ArtifactError, match=r"m\.onnx"):
        export_onnx(Forgetful(), {"x": np.ones((3, 2), np.float32)}, "y", tmp_path / "m.onnx")


def test_a_small_index_is_exact(tmp_path: Path) -> None:
    vectors, queries = unit(500, 1), unit(20, 2)
    report = build_index(vectors, queries, tmp_path / "i.faiss", seed=0)
    found = faiss.read_index(str(tmp_path / "i.faiss")).search(queries, 200)[1]
    assert report.kind == "flat"
    assert overlap(exact_top(vectors, queries, 200), found) == 1.0


def test_a_large_index_probes_until_recall_is_reached(tmp_path: Path) -> None:
    vectors, queries = unit(4000, 1), unit(30, 2)
    report = build_index(vectors, queries, tmp_path / "i.faiss", seed=0, flat_up_to=1000)
    index = faiss.read_index(str(tmp_path / "i.faiss"))
    assert report.kind == "ivf"
    assert index.nprobe == report.nprobe  # the written index carries it
    assert overlap(exact_top(vectors, queries, 200), index.search(queries, 200)[1]) >= 0.99


def test_overlap_by_hand() -> None:
    assert overlap(np.array([[0, 1], [2, 3]]), np.array([[1, 0], [3, 9]])) == 0.75
