"""Fits ahead of time, in processes of their own."""

from multiprocessing.connection import wait
from pathlib import Path

import pytest

from contracts.dataset import DatasetConfig
from training.data import read
from training.fitting import Fitter
from training.holdout import time_of_share
from training.pipeline import TrainConfig


def ahead(data: Path, config: TrainConfig) -> tuple[Fitter, list[int]]:
    moments = [time_of_share(data, share) for share in (0.3, 0.2)]
    assert moments[0] < moments[1] <= read.log_end_us(data)
    return Fitter(data, DatasetConfig.read(data), 0, config.retrieval, at_once=2), moments


def test_the_processes_end_when_all_is_fitted_and_not_only_with_the_training(
    data: Path, quick: TrainConfig, tmp_path: Path
) -> None:
    fitter, moments = ahead(data, quick)
    with fitter as fit:
        fit.ahead(moments)
        assert len(fit._processes) == 2
        assert fit(moments[0], tmp_path / "first").manifest.kind == "retrieval"
        for process in fit._processes:  # the second fit is there, or is being made: nobody has asked for it
            assert wait([process.sentinel], 600)  # the pool's thread joins them: who joins too may find no exit code
        assert fit(moments[1], tmp_path / "second").manifest.kind == "retrieval"


def test_a_training_that_fails_leaves_no_process_behind(data: Path, quick: TrainConfig) -> None:
    fitter, moments = ahead(data, quick)

    def failing() -> None:
        with fitter as fit:
            fit.ahead(moments)
            raise RuntimeError("something went wrong elsewhere")

    with pytest.raises(RuntimeError, match="elsewhere"):
        failing()
    assert not any(process.is_alive() for process in fitter._processes)
    assert not fitter._staging.exists()
