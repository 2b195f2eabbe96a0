"""Where the ranker runs: `STREAMREC_DEVICE=gpu` asks for CUDA and takes the CPU, with a warning, if there is none."""

import logging
from collections.abc import Sequence
from typing import Literal

from bentos.recommender.onnx_session import ort

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
log = logging.getLogger("streamrec.serving")


def providers(device: Literal["cpu", "gpu"], available: Sequence[str] | None = None) -> tuple[str, ...]:
    """ONNX Runtime's execution providers in order of preference."""
    if device == "cpu":
        return (CPU,)
    if CUDA in (ort.get_available_providers() if available is None else available):
        return (CUDA, CPU)
    log.warning("STREAMREC_DEVICE=gpu, but this ONNX Runtime has no %s: ranking on the CPU", CUDA)
    return (CPU,)


def described(wanted: Literal["cpu", "gpu"], provider: str) -> dict[str, str]:
    """What `/readyz` says. `provider`: what the ranker's session really runs on, "" when there is no ranker."""
    used = "gpu" if provider == CUDA else "cpu"
    return {"wanted": wanted, "device": used, "provider": provider or CPU}
