from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from contracts.errors import ArtifactError
from training.export import export_onnx


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
