"""The way of `make gpu-bench`, walked on the CPU with a small load."""

import json

import pytest
import torch

from benchmarks.gpu import PlainDcn, run
from benchmarks.reference_home import Size
from benchmarks.reference_ranker import SMALL, reference_dcn, sample_rows
from benchmarks.reference_world import write_world
from bentos.recommender.assemble import load_models
from contracts.errors import Unreachable
from features.ranking import row_schema

TINY = Size(users=30, items=300, categories=6, creators=10, graph_dim=32, ranker=SMALL)


def test_without_cuda_it_says_so_and_what_to_do(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(Unreachable, match="no CUDA device") as caught:
        run(TINY, tmp_path, device="cuda", rate=10, seconds=1, rounds=2, clients=1)
    assert "--device cpu" in caught.value.next_command


def test_plain_pytorch_is_the_same_model(tmp_path):
    folders = write_world(tmp_path, users=20, items=200, ranker=SMALL)
    models = load_models(folders)
    rows = sample_rows(folders["retrieval"], 4, seed=7)
    weights = reference_dcn(SMALL, row_schema(models.catalogue), rows, seed=7)
    plain = PlainDcn(weights).eval()
    with torch.inference_mode():
        logits = torch.logit(plain(torch.from_numpy(rows)).double())
    expected = weights.slope * torch.from_numpy(weights.logits(rows)).double() + weights.offset
    assert torch.allclose(logits, expected, atol=1e-3)


def test_the_real_ranking_process_is_asked_over_its_socket(tmp_path):
    found = run(TINY, tmp_path, device="cpu", rate=10, seconds=1, rounds=2, clients=1)
    (service,) = found["service"]
    assert service["batches"]["rows"] >= 500
    assert service["answered_per_s"] > 0
    assert found["scores_apart"] < 0.05  # an int8 ranker ranks the same, its scores are near
    assert set(found["in_process"]) == {"this service", "plain PyTorch"}
    assert json.loads(json.dumps(found)) == found
