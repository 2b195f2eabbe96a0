"""What computes here: bits of an answer are the same only on the same instruction set, with the same libraries."""

import os
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path

# Extensions that libraries choose other code by.
_TOLD = (
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "asimd",
    "asimddp",
    "sve",
)
LIBRARIES = ("numpy", "onnxruntime", "faiss-cpu")


@cache
def machine() -> str:
    """`x86_64 avx2 fma …; numpy 1.26.4 …`."""
    libraries = " ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return f"{instruction_set()}; {libraries}"


def blas_threads() -> int:
    """Threads of NumPy's matrix products: one in the processes of `streamrec serve` and `up`, which set it so."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        if (said := os.environ.get(name, "")).isdecimal() and int(said):
            return int(said)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def instruction_set(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's architecture and, where the system tells, which of the extensions it has that matter."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return platform.machine()
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "").split()
    return " ".join([platform.machine(), *(name for name in _TOLD if name in flags)])
