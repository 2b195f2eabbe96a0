"""The `Ranking` process on a GPU that is lost in flight: no scores, no exception, and an end to be started again."""

import math
import os
import signal
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.reference_world import write_world
from bentos.recommender import device, service
from bentos.recommender.assemble import load_models
from bentos.recommender.wire import pack_rows

ROWS = 7


class Lost:
    def score(self, rows):
        raise RuntimeError("CUDA failure 719: unspecified launch failure ; GPU=0")


@pytest.fixture
def ranking(tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMREC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STREAMREC_BUNDLES", str(tmp_path / "world"))
    models = load_models(write_world(tmp_path / "world", users=5, items=50))
    return service._service(service.Ranking).inner(replace(models, ranker=Lost(), provider=device.CUDA))


@pytest.fixture
def ended(monkeypatch):
    told = []
    monkeypatch.setattr(service.os, "kill", lambda pid, number: told.append((pid, number)))
    return told


def test_a_batch_that_fails_gives_no_scores_and_after_five_the_process_ends(ranking, ended):
    rows = np.zeros((ROWS, 3), np.float32)
    for n in range(service.LOST):
        assert not ended, n
        (scores,) = ranking.score(pack_rows(rows, math.inf))
        assert scores.shape == (ROWS,)
        assert np.isnan(scores).all()
    assert ended == [(os.getpid(), signal.SIGTERM)]


def test_on_the_cpu_it_stays_as_another_process_would_fail_alike(ranking, ended):
    ranking.loaded.models = replace(ranking.loaded.models, provider=device.CPU)
    for _ in range(20):
        (scores,) = ranking.score(pack_rows(np.zeros((ROWS, 3), np.float32), math.inf))
        assert np.isnan(scores).all()
    assert ended == []
