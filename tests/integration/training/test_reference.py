"""A training keeps what its model version read: rows, statistics, vectors, importance; found again from the version."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from contracts.errors import ArtifactError, NotFound, UsageError
from contracts.settings import Settings
from features.frame import DENSE, FEATURES
from features.registry import REGISTRY
from monitoring.frames.reference import Reference, load_reference
from registry.lineage import lineage
from registry.models import Registry
from registry.reference import FOLDER, STATISTICS
from training.pipeline import TrainConfig, TrainResult, train


@pytest.fixture(scope="module")
def reference(whole: tuple[TrainResult, Settings]) -> Reference:
    result, settings = whole
    return load_reference(settings.home, result.models["ranking"])


def test_rows_are_of_slates_with_their_labels_and_of_candidates(reference: Reference) -> None:
    rows = reference.rows
    assert set(FEATURES) | {"timestamp", "user_id", "item_id", "label", "score", "country"} <= set(rows.column_names)
    assert set(rows["origin"].unique().to_pylist()) == {"slate", "candidate"}
    shown = reference.shown
    assert set(shown["origin"].unique().to_pylist()) == {"slate"}
    assert pc.max(shown["position"]).as_py() <= 20
    assert 0 < pc.sum(shown["label"]).as_py() < shown.num_rows
    scores = rows["score"].to_numpy()
    assert ((scores >= 0) & (scores <= 1)).all()
    assert rows["category"].null_count == 0
    per_user = shown.group_by(["user_id"]).aggregate([("position", "count"), ("item_id", "count_distinct")])
    assert per_user["position_count"].equals(per_user["item_id_count_distinct"])


def test_statistics_are_those_of_the_slates(reference: Reference) -> None:
    assert reference.origin == "slate"
    assert reference.feature_hash == REGISTRY.hash
    shown = reference.shown
    for name in ("log_item_pop_7d", "category_share", "log_price"):
        values = shown[name].drop_null().to_numpy()
        summary = reference.summaries[name]
        assert summary.mean == pytest.approx(values.mean(), rel=1e-4)
        assert summary.sd == pytest.approx(values.std(ddof=1), rel=1e-4)
        assert summary.null_rate == pytest.approx(shown[name].null_count / shown.num_rows)
    countries = reference.summaries["country"].categories
    assert countries == {p["values"]: p["counts"] for p in pc.value_counts(shown["country"]).to_pylist()}
    assert {"hour_sin", "weekday_cos"} <= reference.unread


def test_importance_is_of_every_feature_and_never_negative(reference: Reference) -> None:
    assert set(reference.importance) == set(FEATURES)
    assert min(reference.importance.values()) >= 0
    assert all(reference.importance[name] == 0 for name in reference.unread if name in DENSE)


def test_vectors_are_of_the_registered_model(reference: Reference, whole: tuple[TrainResult, Settings]) -> None:
    result, settings = whole
    vectors = reference.embeddings
    registry = Registry.open(settings)
    bundle = registry.bundle(registry.resolve(result.models["retrieval"]))
    whole = np.load(bundle.path("item_embeddings.npy"))
    assert len(vectors["items"]) == len(vectors["item_ids"]) == len(whole)
    assert np.allclose(np.linalg.norm(vectors["users"].astype(np.float32), axis=1), 1, atol=1e-3)
    assert np.allclose(np.sort(vectors["items"], axis=0), np.sort(whole, axis=0))


def test_the_version_names_its_reference_in_lineage_and_evidence(whole: tuple[TrainResult, Settings]) -> None:
    result, settings = whole
    registry = Registry.open(settings)
    version = registry.resolve(result.models["ranking"])
    assert len(version.tags["reference_digest"]) == 64
    assert lineage(version.uri, registry, settings).facts["reference_digest"] == version.tags["reference_digest"]
    evidence = registry.evidence(version)
    assert evidence is not None
    (check,) = [c for c in evidence.checks if c.name == "drift_baseline"]
    assert check.verdict == "pass"
    assert check.figures["slate_rows"] > 0


def test_it_is_found_by_run_too_and_a_model_that_is_no_ranker_is_refused(
    whole: tuple[TrainResult, Settings], reference: Reference
) -> None:
    result, settings = whole
    by_run = load_reference(settings.home, result.run_id)
    assert (by_run.folder, by_run.snapshot) == (reference.folder, result.snapshot)
    with pytest.raises(UsageError, match="no ranker"):
        load_reference(settings.home, result.models["retrieval"])
    with pytest.raises(NotFound):
        load_reference(settings.home, "0" * 32)


def test_a_reference_that_was_changed_or_lost_is_an_error_that_says_so(
    whole: tuple[TrainResult, Settings], reference: Reference
) -> None:
    result, settings = whole
    path = reference.folder / STATISTICS
    kept = path.read_bytes()
    try:
        path.write_bytes(kept.replace(b"slate", b"other"))
        with pytest.raises(ArtifactError, match="not the reference that"):
            load_reference(settings.home, result.models["ranking"])
        path.unlink()
        with pytest.raises(ArtifactError, match=r"lacks statistics\.json"):
            load_reference(settings.home, result.models["ranking"])
    finally:
        path.write_bytes(kept)
    moved = reference.folder.rename(reference.folder.with_name("elsewhere"))
    try:
        with pytest.raises(NotFound, match="kept no reference"):
            load_reference(settings.home, result.models["ranking"])
    finally:
        moved.rename(reference.folder)
    assert reference.folder.name == FOLDER
    assert Path(reference.folder / STATISTICS).exists()


@pytest.mark.slow
def test_the_same_seed_keeps_the_same_rows(
    whole: tuple[TrainResult, Settings], reference: Reference, quick: TrainConfig, tmp_path: Path
) -> None:
    again_at = Settings(home=tmp_path / "home")
    again = train(whole[1].home.parent / "data", until_us=None, seed=1, settings=again_at, config=quick)
    other = load_reference(again_at.home, again.models["ranking"])
    columns = ["timestamp", "user_id", "item_id", "label", "origin"]
    candidates = [t.filter(pc.equal(t["origin"], "candidate")).select(columns) for t in (reference.rows, other.rows)]
    assert candidates[0].num_rows == candidates[1].num_rows > 0
    assert isinstance(other.rows, pa.Table)
    assert set(other.shown["user_id"].to_pylist()) == set(reference.shown["user_id"].to_pylist())
