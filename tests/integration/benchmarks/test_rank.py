"""The benchmark of ranking: figures of real graphs; of their times none is judged, of their agreement all."""

import pytest

from benchmarks.rank import run
from benchmarks.reference_home import Size
from benchmarks.reference_ranker import SMALL

TINY = Size(users=20, items=400, categories=8, creators=20, graph_dim=32, ranker=SMALL)
# The ranker in its whole size over fewer items.
WHOLE = Size(users=100, items=20_000)


def test_every_graph_is_timed_beside_the_plain_one_and_compared_with_it(tmp_path):
    document = run(TINY, tmp_path, pairs=2, extras=False)
    assert set(document["graphs"]) == {"plain", "float32", "int8", "bundle"}
    assert all(one["ms"]["median"] > 0 and one["ms"]["n"] == 2 for one in document["graphs"].values())
    assert document["graphs"]["plain"]["times_the_plain"]["median"] == 1
    assert document["bundle_differs_by"] < 1e-5
    assert document["chosen"]["arithmetic"] == "float32"
    assert document["agreement"]["float32"]["max_difference"] < 1e-5
    assert document["agreement"]["bundle"] == document["agreement"]["float32"]
    assert document["bits_that_depend_on_the_batch"] == dict.fromkeys(document["graphs"], 0)


@pytest.mark.slow
def test_the_reference_ranker_serves_in_int8_and_ranks_the_same(tmp_path):
    document = run(WHOLE, tmp_path, pairs=6)
    assert document["workload"]["width"] == 320
    assert document["chosen"]["arithmetic"] == "int8"
    served = document["agreement"]["bundle"]
    assert served["overlap"] >= 0.98
    assert served["ndcg_loss"] <= 0.005
    assert document["agreement"]["float32"]["max_difference"] < 1e-4
    assert document["bits_that_depend_on_the_batch"] == dict.fromkeys(document["graphs"], 0)
    assert set(document["growth"]) == {"100", "200", "500", "1000", "2000"}
    assert document["opening"]["bundle"]["open_ms"] > 0
