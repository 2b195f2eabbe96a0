"""What a baseline's answer costs is what one thread does for it, as with the models."""

import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_info

from training.baselines.fitted import serve_us


def test_a_list_costs_the_middle_of_this_threads_cpu_with_the_libraries_on_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, takes = {"cpu": 0.0}, iter([40e-6, 10e-6, 20e-6])
    threads: set[Any] = set()

    def recommend(users: NDArray[np.int64]) -> None:
        clock["cpu"] += next(takes)
        threads.update(pool["num_threads"] for pool in threadpool_info())

    monkeypatch.setattr(time, "thread_time", lambda: clock["cpu"])
    monkeypatch.setattr(time, "process_time", lambda: 0.0)
    assert serve_us(recommend, np.arange(3)) == pytest.approx(20)
    assert threads == {1}
    assert serve_us(recommend, np.arange(0)) is None
