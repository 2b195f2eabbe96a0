"""alibi-detect behind the same interface (Business Source Licence: docs/adr/0006). Imported only when asked: 5 s.

Its traps, met here: p-values of kernel tests vary from run to run without `set_seed`, may be 0, and 1,000 permutations
at once take gigabytes, so they are drawn 100 at a time; two torch threads are four times slower than one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitoring.drift.base import Codes, EngineName, Floats, Statistic
from monitoring.drift.engines.permutations import sequential_p

CHUNK = 100


class Alibi:
    name: EngineName = "alibi"

    def ks(self, reference: Floats, current: Floats) -> Statistic:
        from alibi_detect.cd import KSDrift

        return _univariate(KSDrift(reference[:, None]), current)

    def cvm(self, reference: Floats, current: Floats) -> Statistic:
        from alibi_detect.cd import CVMDrift

        return _univariate(CVMDrift(reference[:, None]), current)

    def chi_square(self, reference: Codes, current: Codes) -> Statistic:
        from alibi_detect.cd import ChiSquareDrift

        return _univariate(ChiSquareDrift(reference[:, None]), current)

    def fisher(self, reference: NDArray[np.bool_], current: NDArray[np.bool_]) -> Statistic:
        from alibi_detect.cd import FETDrift

        return _univariate(FETDrift(reference[:, None], alternative="two-sided"), current)

    def mmd(self, reference: Floats, current: Floats, seed: int) -> Statistic:
        from alibi_detect.cd import MMDDrift

        with one_thread(seed):
            made = MMDDrift(reference.astype(np.float32), backend="pytorch", device="cpu", n_permutations=CHUNK)
            return _permuted(made, current)

    def lsdd(self, reference: Floats, current: Floats, seed: int) -> Statistic:
        from alibi_detect.cd import LSDDDrift

        with one_thread(seed):  # from here on: the centres of its kernels are drawn when it is made
            made = LSDDDrift(reference.astype(np.float32), backend="pytorch", device="cpu", n_permutations=CHUNK)
            return _permuted(made, current)


def _univariate(detector: Any, current: NDArray[Any]) -> Statistic:
    found = detector.predict(current[:, None], drift_type="feature")["data"]
    return Statistic(float(found["distance"][0]), float(found["p_val"][0]))


def _permuted(detector: Any, current: Floats) -> Statistic:
    distance = 0.0

    def exceed(count: int) -> int:
        nonlocal distance
        found = detector.predict(current.astype(np.float32))["data"]
        distance = float(found["distance"])
        return round(float(found["p_val"]) * CHUNK)

    p = sequential_p(exceed, CHUNK)
    return Statistic(distance, p)


@contextmanager
def one_thread(seed: int | None = None) -> Iterator[None]:
    import torch
    from alibi_detect.utils._random import set_seed

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    if seed is not None:
        set_seed(seed)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
