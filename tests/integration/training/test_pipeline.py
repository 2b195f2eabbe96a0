"""`train` from a data set to registered models, on a small world."""

import json
import shutil
from pathlib import Path

import pytest

from contracts.checklist import CHECK, TRAIN, UNTIL, wanted
from contracts.errors import DataError, NotFound
from contracts.quality import QualityPolicy
from contracts.serving import RANKERS
from contracts.settings import Settings
from registry.artifacts import KINDS, fit_problems, open_bundle, verify
from registry.models import Registry
from training.baselines.fitted import BASELINES
from training.holdout import time_of_share
from training.models.trees import TreesConfig
from training.pipeline import TrainConfig, TrainResult, take_snapshot, train
from training.ranking import RankingConfig
from training.release_checks import release_checks
from training.repeat import repeat, snapshot_of, told_to


@pytest.fixture(scope="module")
def trained(
    data: Path, quick: TrainConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainResult, Settings, Path, Path]:
    """(result, settings, the folder it trained on, the bundles). No ranker is named: who serves is chosen."""
    root = tmp_path_factory.mktemp("trained")
    source = root / "data"
    shutil.copytree(data, source)
    settings = Settings(home=root / "home")
    result = train(
        source,
        until_us=time_of_share(source, 0.1),
        seed=1,
        settings=settings,
        config=quick.model_copy(
            update={
                "ranking": RankingConfig(moments=2, window_share=0.1),
                "trees": TreesConfig(rounds=8, leaves=4, min_rows_in_leaf=20),
            }
        ),
        keep=root / "bundles",
    )
    return result, settings, source, root / "bundles"


def test_the_table_has_the_funnel_and_the_baselines_with_errors(trained: tuple) -> None:
    result = trained[0]
    assert set(result.baselines) == set(BASELINES)
    for figures in (result.metrics, *result.baselines.values()):
        for name in ("ndcg@10", "recall@10", "recall@500", "hit@10", "mrr@10", "map@10", "coverage"):
            assert 0 <= figures[name] <= 1
            assert figures[f"{name}_se"] >= 0
    assert result.metrics["recall@500:two_tower"] <= 1
    assert result.metrics["ndcg@10:graph"] <= 1
    assert {"no_rules_ndcg@10", "ranker_auc", "ranker_log_loss", "ranker_ece"} <= set(result.metrics)
    json.dumps(result.metrics, allow_nan=False)


def test_the_ranker_that_serves_is_the_one_that_was_chosen_across_time(trained: tuple) -> None:
    result, settings, _, bundles = trained
    chosen = result.ranker.partition(",")[0]
    assert "the simplest within 1% of the best" in result.ranker
    assert "at the last moment, learned at the 1 before" in result.ranker
    facts = Registry.open(settings).run_facts(result.run_id)
    found = {name: facts.metrics[f"choice_ndcg@10_{name}"] for name in RANKERS}
    assert chosen == next(name for name in RANKERS if found[name] >= 0.99 * max(found.values()))
    assert facts.tags["ranker"] == chosen
    manifest = open_bundle(bundles / "ranking", "ranking").manifest
    assert manifest.params["ranker"] == chosen
    assert manifest.params["choice_ndcg@10_dcn"] == found["dcn"]


def test_the_ladder_ends_with_the_ranker_and_gives_each_rung_a_cost(trained: tuple) -> None:
    result, settings, _, _ = trained
    steps = result.evaluation.ladder
    assert [rung.name for rung in steps.rungs] == [*BASELINES, "funnel (no rules)"]
    for rung in steps.rungs:
        assert rung.cost.train_s is not None
        assert rung.cost.serve_us is not None
        assert rung.cost.serve_us > 0
    evidence = Registry.open(settings).evidence(Registry.open(settings).resolve(result.models["ranking"]))
    assert evidence is not None
    check = next(check for check in evidence.checks if check.name == "baselines")
    assert set(check.figures) == {f"{name}_ndcg@10" for name in (*BASELINES, "funnel (no rules)")}
    assert check.advisory == (steps.rung("funnel (no rules)").verdict != "not worth it")


def test_three_bundles_that_fit_one_another_are_registered_with_evidence(trained: tuple) -> None:
    result, settings, _, bundles = trained
    opened = [open_bundle(bundles / kind, kind) for kind in ("retrieval", "ranking", "fallback")]
    assert fit_problems(opened) == []
    assert [problem for bundle in opened for problem in verify(bundle)] == []
    registry = Registry.open(settings)
    for kind, uri in result.models.items():
        version = registry.resolve(uri)
        assert version.run_id == result.run_id
        evidence = registry.evidence(version)
        assert evidence is not None
        checks = {check.name: check for check in evidence.checks}
        assert {"lineage", "artifacts", "parity", "leakage"} <= set(checks)
        of_quality = {"metrics", "baselines", "calibration"}  # of some dozen wishes: luck in a world as small as this
        assert [c for c in checks.values() if c.name not in of_quality and c.verdict == "fail"] == []
        assert ("metrics" in checks) == (kind == "ranking")
        assert set(wanted(version.name)) <= set(checks)  # nothing of the checklist was never looked at
        card = (registry.bundle(version).folder.parent / "card.md").read_text()
        assert card.startswith(f"# {version.name} {version.number}\n")
        assert "champion" in card  # the first of its name


def test_each_check_names_the_command_that_writes_it(trained: tuple) -> None:
    result, settings, _, bundles = trained
    registry = Registry.open(settings)
    opened = {kind: open_bundle(bundles / kind, kind) for kind in KINDS}
    checked = release_checks(registry, opened, QualityPolicy(), {})
    for kind, uri in result.models.items():
        evidence = registry.evidence(registry.resolve(uri))
        assert evidence is not None
        by_training = {check.name for check in evidence.checks}
        written = {TRAIN: by_training, UNTIL: by_training, CHECK: {check.name for check in checked[kind]}}
        for check in evidence.checks:
            assert check.name in written[check.command], check


def test_every_training_looks_for_leaks_and_judges_slices_fairness_calibration_and_cold_start(trained: tuple) -> None:
    result, settings, _, _ = trained
    registry = Registry.open(settings)
    of = {kind: registry.evidence(registry.resolve(uri)) for kind, uri in result.models.items()}
    leaks = {f"leakage_{what}" for what in ("ids", "duplicates", "overlap", "single_feature", "shuffled")}
    for evidence in of.values():
        assert evidence is not None
        checks = {check.name: check for check in evidence.checks}
        assert leaks <= set(checks)
        assert checks["leakage_overlap"].verdict == "pass"
        assert [name for name in leaks if checks[name].verdict == "fail"] == []
    checks = {check.name: check for check in of["ranking"].checks}
    assert {"slices", "fairness", "calibration", "cold_start"} <= set(checks)
    # A world of 20 days has nobody with a tenure of 90: a slice without an event is no pass.
    assert checks["slices"].verdict == "inconclusive"
    assert "with no event in the test" in checks["slices"].detail
    study = result.evaluation.study
    assert study.sides.met == study.sides.late == study.sides.early == 0
    assert study.sides.targets == result.evaluation.n_targets
    assert {"tenure=<7 d", "value=high", "recency=<1 d"} <= set(result.evaluation.funnel.slices)


def test_a_run_is_repeated_from_its_lineage_to_the_last_digit_whatever_the_settings_say_now(
    trained: tuple, tmp_path: Path
) -> None:
    first, settings, source, _ = trained
    (tmp_path / "quality.toml").write_text("[slices]\nworse_by = 0.01\n")
    (tmp_path / "framing.toml").write_text("[ranking.costs]\nfalse_negative = 9\n")
    other = settings.model_copy(update={n: tmp_path / f"{n}.toml" for n in ("quality", "framing")})
    away = source.with_name("moved")
    source.rename(away)
    try:
        again = repeat(first.run_id, other)
    finally:
        away.rename(source)
    assert again.comparison.verdict == "same"
    assert again.comparison.differences == {}
    assert again.comparison.compared > 100
    assert again.warnings == ()
    assert again.result.run_id != first.run_id
    assert again.result.snapshot == first.snapshot
    assert again.result.metrics == first.metrics
    registry = Registry.open(settings)
    old, new = (told_to(registry.run_facts(run_id), registry) for run_id in (first.run_id, again.result.run_id))
    assert old == new


def test_a_folder_that_is_gone_is_trained_on_from_its_snapshot(trained: tuple) -> None:
    first, settings, source, _ = trained
    away = source.with_name("moved")
    source.rename(away)
    try:
        kept, notes = take_snapshot(source, settings.home)
    finally:
        away.rename(source)
    assert any("is gone" in note for note in notes)
    assert kept.digest == first.snapshot


def test_a_run_whose_rows_are_gone_or_changed_is_not_repeated(trained: tuple, tmp_path: Path) -> None:
    first, settings, _, _ = trained
    facts = Registry.open(settings).run_facts(first.run_id)
    with pytest.raises(NotFound, match="not found"):
        repeat("0" * 32, settings)
    with pytest.raises(NotFound, match=f"snapshot {first.snapshot[:12]} of run {first.run_id} is gone"):
        snapshot_of(facts, tmp_path)
    kept = tmp_path / "snapshots" / first.snapshot
    shutil.copytree(settings.home / "snapshots" / first.snapshot, kept)
    assert snapshot_of(facts, tmp_path).digest == first.snapshot
    (kept / "dataset.toml").chmod(0o644)
    (kept / "dataset.toml").write_text((kept / "dataset.toml").read_text().replace("0.01", "0.02") + "\n")
    with pytest.raises(DataError, match="is not what it was"):
        snapshot_of(facts, tmp_path)


def test_what_was_declared_of_each_model_stands_with_its_version_and_its_run(trained: tuple) -> None:
    result, settings, _, _ = trained
    registry = Registry.open(settings)
    frames = {kind: json.loads(registry.resolve(uri).tags["framing"]) for kind, uri in result.models.items()}
    assert frames["ranking"]["budget_ms"] == 50
    assert set(frames["ranking"]["target"]) == set(frames["retrieval"]["target"])
    assert "costs" not in frames["retrieval"]
    assert frames["fallback"]["horizon"] == frames["ranking"]["horizon"]


def test_a_folder_that_was_never_there_is_not_found(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no data set"):
        train(tmp_path / "nothing", until_us=None, seed=0, settings=settings)


def test_a_cut_before_the_data_is_a_clear_error(data: Path, settings: Settings, quick: TrainConfig) -> None:
    with pytest.raises(DataError, match="before --until"):
        train(data, until_us=1, seed=0, settings=settings, config=quick)
