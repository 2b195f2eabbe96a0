"""The retrieval benchmark on worlds made in a moment: what it measures is right, how long it took is not tested."""

from pathlib import Path

from benchmarks.reference_home import Size
from benchmarks.reference_ranker import SMALL
from benchmarks.retrieve import run


def test_exact_contestants_find_what_exact_search_finds_and_every_figure_has_its_interval() -> None:
    (small,) = run([1_000], queries=10, rounds=2)["nearest"]
    assert set(small["contestants"]) == {"ours", "faiss_flat", "faiss_hnsw"}
    for name in ("ours", "faiss_flat"):
        assert small["contestants"][name]["recall_at_200"] == 1.0
    for figures in small["contestants"].values():
        assert figures["ms"]["n"] == 2
        assert figures["ms"]["low"] <= figures["ms"]["median"] <= figures["ms"]["high"]
    assert small["contestants"]["faiss_flat"]["times_ours"]["n"] == 2


def test_the_stages_of_the_funnel_are_told_by_name(tmp_path: Path) -> None:
    size = Size(users=20, items=300, categories=5, creators=10, graph_dim=8, ranker=SMALL)
    funnel = run([], queries=5, rounds=1, stages_of=(size, tmp_path))["funnel"]
    sources = {f"source.{name}" for name in ("two_tower", "graph", "content", "trending")}
    assert sources | {"hydrate", "merge", "filter", "rows", "rank", "rerank"} <= set(funnel["stages_ms"])
    assert funnel["cpu_ms"]["n"] == 1
