"""A process that started with missing or damaged model files takes them over once they are there: no restart."""

import asyncio
import os
import shutil
import time
from functools import partial

import pytest

from benchmarks.reference_world import write_world
from bentos.recommender.assemble import load_models
from bentos.recommender.bundles import pinned
from bentos.recommender.runtime import Runtime
from contracts.http import RecommendationRequest
from contracts.settings import Settings

PLENTY = {"deadline_ms": 60_000, "retrieval_budget_ms": 10_000, "ranking_budget_ms": 10_000}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    write_world(folder, users=20, items=100)
    return folder


def rung(runtime):
    given = asyncio.run(runtime.recommend(RecommendationRequest("u1", k=5), "r1", time.perf_counter()))
    assert len(given.slate.item_ids) == 5
    return given.slate.degradation, given.slate.ranked_by


def upkeep(runtime):
    """As in the background: parts, items, the store's snapshot."""

    async def once():
        await runtime._upkeep.mend()
        await runtime._upkeep.follow_catalogue()
        await runtime._refresh()

    asyncio.run(once())


@pytest.mark.parametrize("how", ["missing", "damaged"])
@pytest.mark.parametrize(
    ("files", "component", "then"),
    [
        (("ranking/dcn.onnx",), "ranking", ("simple_ranking", "logistic")),
        (("ranking/dcn.onnx", "fallback/logistic.npz"), "fallback", ("simple_ranking", "retrieval")),
        (("retrieval/two_tower.onnx",), "retrieval", ("full", "dcn")),
        (("retrieval/items.faiss",), "retrieval", ("full", "dcn")),
        (("retrieval/item_embeddings.npy",), "retrieval", ("popularity", "popularity")),
        (("retrieval/items.arrow",), "retrieval", ("popularity", "popularity")),
        (("fallback/popularity.npy",), "fallback", ("full", "dcn")),
    ],
)
def test_a_file_costs_its_rung_and_gives_it_back(files, component, then, how, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "world")
    for file in files:
        path = tmp_path / "world" / file
        path.unlink() if how == "missing" else path.write_bytes(b"\x00garbage" * 100)
    pins = pinned(None, tmp_path / "world")
    settings = Settings(home=tmp_path / "home", online_store="memory", **PLENTY)
    runtime = Runtime(settings, pins, load_models(pins.folders), again=partial(load_models, pins.folders))
    runtime.phase = "serving"
    try:
        upkeep(runtime)
        assert rung(runtime) == then
        assert runtime.readiness().components[component].state != "healthy"
        for file in files:
            shutil.copy2(whole / file, tmp_path / "world" / file)
        upkeep(runtime)
        assert rung(runtime) == ("full", "dcn")
        ready = runtime.readiness()
        assert (ready.best, ready.components[component].state) == ("full", "healthy")
    finally:
        runtime.phase = "stopped"
        asyncio.run(runtime.close())


@pytest.fixture
def running(whole, tmp_path):
    """A process over files of its own, and their folder."""
    shutil.copytree(whole, tmp_path / "world")
    pins = pinned(None, tmp_path / "world")
    settings = Settings(home=tmp_path / "home", online_store="memory", **PLENTY)
    runtime = Runtime(settings, pins, load_models(pins.folders), again=partial(load_models, pins.folders))
    runtime.phase = "serving"
    upkeep(runtime)
    assert rung(runtime) == ("full", "dcn")
    yield runtime, tmp_path / "world"
    runtime.phase = "stopped"
    asyncio.run(runtime.close())


def write_into(path, content):
    """Not a new file in its place: what has it mapped reads the new content."""
    with path.open("r+b") as file:
        file.write(content)


@pytest.mark.parametrize(
    ("file", "component", "then"),
    [
        ("ranking/dcn.onnx", "ranking", ("simple_ranking", "logistic")),
        ("retrieval/item_embeddings.npy", "retrieval", ("popularity", "popularity")),
        ("retrieval/user_rows.npy", "retrieval", ("popularity", "popularity")),
        ("retrieval/graph_items.npy", "retrieval", ("full", "dcn")),
    ],
)
def test_a_file_that_is_written_over_costs_its_rung_and_gives_it_back(file, component, then, running, whole):
    runtime, world = running
    path = world / file
    write_into(path, b"\x7f" * path.stat().st_size)
    upkeep(runtime)
    assert rung(runtime) == then
    found = runtime.readiness().components[component]
    assert (found.state != "healthy", f"{path.name} does not match its checksum" in found.detail) == (True, True)
    write_into(path, (whole / file).read_bytes())
    upkeep(runtime)
    assert rung(runtime) == ("full", "dcn")
    assert runtime.readiness().components[component].state == "healthy"


def test_files_that_are_deleted_are_missed_aloud_and_serve_on(running, whole):
    runtime, world = running
    files = ("retrieval/item_embeddings.npy", "retrieval/items.arrow", "ranking/dcn.onnx")
    for file in files:
        (world / file).unlink()
    upkeep(runtime)
    assert rung(runtime) == ("full", "dcn")
    ready = runtime.readiness()
    assert (ready.status, ready.components["retrieval"].state, ready.components["ranking"].state) == ("degraded",) * 3
    assert "item_embeddings.npy, items.arrow: gone" in ready.components["retrieval"].detail
    for file in files:
        shutil.copy2(whole / file, world / file)
    upkeep(runtime)
    assert runtime.readiness().components["retrieval"].state == "healthy"


def test_a_file_that_is_touched_and_not_changed_costs_nothing(running):
    runtime, world = running
    os.utime(world / "retrieval" / "items.faiss", (1, 1))
    upkeep(runtime)
    assert runtime.readiness().components["retrieval"].state == "healthy"


def test_files_are_read_again_only_when_they_have_changed(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "world")
    (tmp_path / "world" / "ranking" / "dcn.onnx").unlink()
    pins = pinned(None, tmp_path / "world")
    loads = []

    def again(**_):
        loads.append(True)
        return load_models(pins.folders)

    runtime = Runtime(Settings(home=tmp_path / "home", online_store="memory"), pins, again(), again=again)
    try:
        for _ in range(5):
            upkeep(runtime)
        assert len(loads) == 2  # at the start, and once to be sure of it
    finally:
        asyncio.run(runtime.close())
