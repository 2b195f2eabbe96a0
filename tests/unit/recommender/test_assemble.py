"""A start with missing, corrupt or unfit files: degraded, by name, and never a failure."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.reference_world import write_world
from bentos.recommender.assemble import load_models
from bentos.recommender.compose import scorers
from bentos.recommender.funnel import Funnel
from bentos.recommender.rankers.dcn import FoldedRanker
from bentos.recommender.rankers.onnx_graph import OnnxRanker
from bentos.recommender.rules import default_rules
from contracts.rules import RulesDocument
from features.online.base import UserState
from features.ranking import WIDTH
from registry.artifacts import FAST_RANKER, KINDS, Kind, open_bundle, seal, verify
from tests.ranking_bundles import resealed, trees_in_its_place


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    write_world(folder, users=10, items=120)
    return folder


@pytest.fixture
def folders(whole: Path, tmp_path: Path) -> Mapping[Kind, Path]:
    """A copy that a test may break."""
    shutil.copytree(whole, tmp_path / "world")
    return {kind: tmp_path / "world" / kind for kind in KINDS}


def run(folders: Mapping[Kind, Path | None], ask: Any, **options: Any) -> tuple[Any, Any]:
    models = load_models(folders, **options)
    return models, Funnel(models, default_rules()).run(ask(k=10), UserState("u1"))


def test_the_synthetic_bundles_are_whole(folders: Mapping[Kind, Path]) -> None:
    for kind in KINDS:
        assert verify(open_bundle(folders[kind], kind)) == []


def test_the_same_seed_writes_the_same_world(folders: Mapping[Kind, Path], tmp_path: Path) -> None:
    again = write_world(tmp_path / "again", users=10, items=120)
    for kind in KINDS:
        assert open_bundle(again[kind], kind).manifest.files == open_bundle(folders[kind], kind).manifest.files


@pytest.mark.parametrize("how", ["no folder", "no file", "empty", "garbage", "changed", "other columns"])
def test_without_a_sound_ranker_the_start_succeeds_and_says_simple_ranking(
    how: str, folders: Mapping[Kind, Path], ask: Any
) -> None:
    file = folders["ranking"] / "dcn.onnx"
    given: dict[Kind, Path | None] = dict(folders)
    match how:
        case "no folder":
            given["ranking"] = None
        case "no file":
            file.unlink()
        case "empty":
            file.write_bytes(b"")
        case "garbage":
            file.write_bytes(b"\x00garbage" * 100)
        case "changed":
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
        case "other columns":
            manifest = json.loads((folders["ranking"] / "manifest.json").read_text())
            (folders["ranking"] / "schema.json").write_text('{"columns": [{"name": "x", "kind": "dense", "size": 0}]}')
            manifest["files"] = {}
            (folders["ranking"] / "manifest.json").write_text(json.dumps(manifest))
    models, slate = run(given, ask)
    assert list(models.problems) == ["ranking"]
    assert models.provider == ""
    assert (slate.degradation, slate.ranked_by) == ("simple_ranking", "logistic")
    assert len(slate.item_ids) == 10
    assert Funnel(models, default_rules()).status()["best"] == "simple_ranking"


@pytest.mark.parametrize("how", ["no file", "empty", "garbage", "changed"])
def test_a_torn_fast_graph_costs_time_and_not_the_answer(how: str, folders: Mapping[Kind, Path], ask: Any) -> None:
    file = folders["ranking"] / FAST_RANKER
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if how == "no file":
        file.unlink()
    else:
        file.write_bytes({"empty": b"", "garbage": b"\x00garbage" * 100, "changed": bytes(content)}[how])
    models, slate = run(folders, ask)
    assert list(models.problems) == ["ranking.fast"]
    assert FAST_RANKER in models.problems["ranking.fast"]
    assert isinstance(models.ranker, OnnxRanker)
    assert models.provider == "CPUExecutionProvider"
    assert (slate.degradation, slate.ranked_by) == ("full", "dcn")


def test_a_fast_graph_that_does_not_load_is_replaced_by_the_plain_one(folders: Mapping[Kind, Path], ask: Any) -> None:
    (folders["ranking"] / FAST_RANKER).write_bytes(b"sealed, and yet no model")
    manifest = open_bundle(folders["ranking"], "ranking").manifest
    seal(
        folders["ranking"], **{name: getattr(manifest, name) for name in manifest.__struct_fields__ if name != "files"}
    )
    models, slate = run(folders, ask)
    assert "is not a model that can be loaded" in models.problems["ranking.fast"]
    assert slate.degradation == "full"


def test_a_bundle_from_before_the_fast_graph_serves_the_plain_one(folders: Mapping[Kind, Path], ask: Any) -> None:
    (folders["ranking"] / FAST_RANKER).unlink()
    manifest = open_bundle(folders["ranking"], "ranking").manifest
    kept = {name: getattr(manifest, name) for name in manifest.__struct_fields__ if name not in ("files", "params")}
    seal(folders["ranking"], **kept)
    models, slate = run(folders, ask)
    assert models.problems == {}
    assert isinstance(models.ranker, OnnxRanker)
    assert slate.degradation == "full"


@pytest.fixture
def with_trees(folders: Mapping[Kind, Path]) -> Mapping[Kind, Path]:
    trees_in_its_place(folders["ranking"])
    return folders


def test_a_bundle_of_trees_serves_and_says_so(with_trees: Mapping[Kind, Path], ask: Any) -> None:
    models, slate = run(with_trees, ask)
    assert models.problems == {}
    assert [scorer.name for scorer in scorers(models)] == ["trees", "logistic", "retrieval"]
    assert (slate.degradation, slate.ranked_by) == ("full", "trees")
    assert models.ranker is not None
    assert np.allclose(models.ranker.score(np.zeros((1, WIDTH), np.float32)), 1 / (1 + np.exp(2)))


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_trees_run_on_the_cpu_whatever_the_device(with_trees: Mapping[Kind, Path]) -> None:
    models = load_models(with_trees, providers=("CUDAExecutionProvider", "CPUExecutionProvider"))
    assert models.ranker is not None
    assert models.provider == "CPUExecutionProvider"


def test_an_entry_knows_whose_answers_a_runner_gives(with_trees: Mapping[Kind, Path]) -> None:
    models = load_models(with_trees, parts=())
    assert (models.problems, models.ranker, models.ranked_by) == ({}, None, "trees")


@pytest.mark.parametrize(
    "params",
    [{"format": "joblib"}, {"format": ["onnx"]}, {"ranker": "oracle"}, {"ranker": "../dcn"}, {"format": "torch"}],
)
def test_a_ranker_in_a_format_that_nobody_reads_is_a_problem_with_a_name(
    params: dict[str, object], folders: Mapping[Kind, Path], ask: Any
) -> None:
    (folders["ranking"] / FAST_RANKER).unlink()
    resealed(folders["ranking"], **params)
    models, slate = run(folders, ask)
    assert list(models.problems) == ["ranking"]
    assert any(word in models.problems["ranking"] for word in ("this code reads", "this code knows", "lacks dcn.pt2"))
    assert (slate.degradation, slate.ranked_by) == ("simple_ranking", "logistic")


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_the_fast_graph_is_for_the_cpu(folders: Mapping[Kind, Path]) -> None:
    assert isinstance(load_models(folders).ranker, FoldedRanker)
    elsewhere = load_models(folders, providers=("AnotherExecutionProvider", "CPUExecutionProvider"))
    assert elsewhere.problems == {}
    assert isinstance(elsewhere.ranker, OnnxRanker)


def test_without_both_rankers_retrieval_orders(folders: Mapping[Kind, Path], ask: Any) -> None:
    (folders["ranking"] / "dcn.onnx").unlink()
    (folders["fallback"] / "logistic.npz").write_bytes(b"PK\x03\x04")
    models, slate = run(folders, ask)
    assert set(models.problems) == {"ranking", "fallback.logistic"}
    assert (slate.degradation, slate.ranked_by) == ("simple_ranking", "retrieval")


@pytest.mark.parametrize("how", ["no folder", "no manifest", "no catalogue", "torn catalogue"])
def test_without_retrieval_the_static_slate_is_served(how: str, folders: Mapping[Kind, Path], ask: Any) -> None:
    given: dict[Kind, Path | None] = dict(folders)
    if how == "no folder":
        given["retrieval"] = None
    elif how == "torn catalogue":
        (folders["retrieval"] / "items.arrow").write_bytes(b"ARROW1\0\0")
    else:
        (folders["retrieval"] / {"no manifest": "manifest.json", "no catalogue": "items.arrow"}[how]).unlink()
    models, slate = run(given, ask)
    assert "retrieval" in models.problems
    assert slate.degradation == "popularity"
    static = json.loads((folders["fallback"] / "slate.json").read_text())["item_ids"]
    assert list(slate.item_ids) == static[:10]
    exclude = models.index.lookup_many(static[:3])
    again = Funnel(models, default_rules()).run(ask(k=10, exclude=exclude), UserState("u1"))
    assert list(again.item_ids) == static[3:13]


def test_without_fallback_the_rest_serves_and_popularity_is_what_trends(folders: Mapping[Kind, Path], ask: Any) -> None:
    models, slate = run({"retrieval": folders["retrieval"], "ranking": folders["ranking"]}, ask)
    assert list(models.problems) == ["fallback"]
    assert slate.degradation == "full"
    assert len(Funnel(models, default_rules()).lowest(ask(k=10), None, "test").item_ids) == 10


def test_popularity_of_another_catalogue_is_not_used(folders: Mapping[Kind, Path], tmp_path: Path, ask: Any) -> None:
    other = write_world(tmp_path / "other", users=10, items=130)
    models, slate = run({**folders, "fallback": other["fallback"]}, ask)
    assert "catalogue" in models.problems["fallback"]
    assert slate.degradation == "full"


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("item_embeddings.npy", "retrieval"),
        ("items.faiss", "retrieval.two_tower"),
        ("two_tower.onnx", "retrieval.two_tower"),
        ("graph_items.npy", "retrieval.graph"),
        ("content_items.npy", "retrieval.content"),
        ("trending.npy", "retrieval.trending"),
        ("item_features.npy", "retrieval.item_features"),
        ("creator_exposure.npy", "retrieval.creator_exposure"),
    ],
)
def test_a_torn_retrieval_file_costs_its_part_alone(
    file: str, part: str, folders: Mapping[Kind, Path], ask: Any
) -> None:
    path = folders["retrieval"] / file
    path.write_bytes(path.read_bytes()[:70])
    models, slate = run(folders, ask)
    assert part in models.problems
    assert len(slate.item_ids) == 10
    if part == "retrieval":
        assert slate.degradation == "popularity"


def test_an_array_of_the_wrong_length_is_refused(folders: Mapping[Kind, Path]) -> None:
    np.save(folders["retrieval"] / "trending.npy", np.zeros(7, np.float32))
    assert "shape (7,), wanted (120,)" in load_models(folders).problems["retrieval.trending"]


def test_an_entry_without_sources_keeps_what_it_needs(folders: Mapping[Kind, Path]) -> None:
    models = load_models(folders, parts=())
    assert models.problems == {}
    assert (models.ranker, models.light) == (None, None)
    assert models.retrieval is not None
    assert models.retrieval.two_tower is None
    assert models.retrieval.graph_items is not None
    assert len(models.catalogue) == 120


def test_nothing_at_all_is_a_list_of_problems() -> None:
    assert set(load_models({}).problems) == set(KINDS)


def test_the_default_rules_are_valid_and_their_digest_names_them() -> None:
    rules = default_rules()
    assert rules.digest.startswith("default-1@")
    assert rules == RulesDocument(version="default-1")
