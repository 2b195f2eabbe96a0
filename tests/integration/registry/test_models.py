"""Real MLflow on SQLite."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from contracts.checklist import wanted
from contracts.errors import ArtifactError, NotFound, Refused, Unreachable
from contracts.evidence import Check
from contracts.settings import Settings
from registry.artifacts import KINDS, open_bundle
from registry.models import Lineage, Registry
from registry.runs import STARTED
from tests.integration.registry.conftest import DATA_DIGEST, MakeBundles, Train


def test_registration_makes_three_versions_of_one_finished_run(registry: Registry, train: Train) -> None:
    versions = train(registry, "trio")
    assert set(versions) == set(KINDS)
    assert len({version.run_id for version in versions.values()}) == 1
    assert registry.newest_run() == {kind: registry.resolve(version.uri) for kind, version in versions.items()}
    assert registry.run_status(versions["retrieval"].run_id) == "FINISHED"
    for kind, version in versions.items():
        assert open_bundle(registry.bundle(version).folder, kind).manifest.kind == kind


def test_a_version_says_where_it_came_from(registry: Registry, train: Train) -> None:
    tags = registry.resolve(train(registry, "tags")["ranking"].uri).tags
    assert tags["data_digest"] == DATA_DIGEST
    assert json.loads(tags["seeds"]) == {"global": 7}
    assert json.loads(tags["evaluation"])["ndcg@10"] == 0.09
    assert tags["baselines_beaten"] == "popularity"
    for key in ("git_commit", "git_dirty", "code_digest", "environment_digest", "feature_hash", "manifest_sha256"):
        assert tags[key], key


def test_mlflow_finds_the_signature_beside_the_bundle(registry: Registry, train: Train) -> None:
    version = train(registry, "signature")["ranking"]
    document = yaml.safe_load((registry.bundle(version).folder.parent / "MLmodel").read_text())
    assert json.loads(document["signature"]["inputs"])[0]["tensor-spec"]["shape"] == [-1, 2]


def test_the_newest_is_challenger_and_only_a_release_moves_the_champion(
    tmp_path: Path, registry: Registry, train: Train
) -> None:
    first = train(registry, "alias 1")["ranking"]
    champion = registry.resolve("streamrec-ranking@champion")
    second = train(registry, "alias 2")["ranking"]
    assert registry.resolve("streamrec-ranking@challenger").number == second.number == first.number + 1
    assert registry.resolve("streamrec-ranking@champion").number == champion.number < second.number


def test_evidence_is_there_with_the_lineage_check_first(registry: Registry, train: Train) -> None:
    evidence = registry.evidence(train(registry, "evidence")["fallback"])
    assert evidence is not None
    assert (evidence.checks[0].name, evidence.checks[0].verdict) == ("lineage", "pass")
    assert {check.name for check in evidence.checks} == set(wanted("streamrec-fallback"))
    assert evidence.readiness == "pass"


def test_lineage_with_holes_is_inconclusive_and_names_them(
    registry: Registry, make_bundles: MakeBundles, lineage: Lineage
) -> None:
    from dataclasses import replace

    with registry.run("holes") as run:
        versions = run.register(make_bundles("holes"), [], replace(lineage, seeds={}, data_digest="short"))
    evidence = registry.evidence(versions["ranking"])
    assert evidence is not None
    assert evidence.readiness == "inconclusive"
    assert "seeds" in evidence.checks[0].detail
    assert "SHA-256" in evidence.checks[0].detail
    assert evidence.checks[0].command


def test_a_later_check_changes_evidence_and_readiness(registry: Registry, train: Train) -> None:
    version = train(registry, "later")["retrieval"]
    registry.add_checks(version, [Check(name="load", verdict="fail", detail="too slow")])
    again = registry.evidence(version)
    assert again is not None
    assert again.readiness == registry.resolve(version.uri).tags["readiness"] == "fail"


def test_a_run_that_fails_is_marked_and_registers_nothing(registry: Registry, train: Train) -> None:
    train(registry, "before")
    newest = registry.newest_run()

    def fail() -> None:
        with registry.run("fails") as run:
            runs.append(run.id)
            raise KeyboardInterrupt

    runs: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        fail()
    assert registry.run_status(runs[0]) == "FAILED"
    assert registry.newest_run() == newest


def test_models_that_do_not_fit_are_refused_before_anything_is_registered(
    registry: Registry, make_bundles: MakeBundles, train: Train
) -> None:
    train(registry, "fits")
    before = {kind: len(registry.versions(kind)) for kind in KINDS}
    odd = make_bundles("odd", only={"ranking": {"catalogue_hash": "d" * 64}})
    with pytest.raises(Refused, match=r"catalogue_hash: retrieval has .* ranking has dddddddddddd"):
        train(registry, "odd", odd)
    assert {kind: len(registry.versions(kind)) for kind in KINDS} == before


def test_a_damaged_bundle_is_not_registered(registry: Registry, make_bundles: MakeBundles, train: Train) -> None:
    bundles = make_bundles("damaged")
    (bundles["fallback"] / "weights.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"weights\.json does not match its checksum"):
        train(registry, "damaged", bundles)


@pytest.mark.parametrize(
    ("name", "digest"), [("interactions.parquet", "01" * 32), ("interactions.parquet/part-0.parquet", "02" * 32)]
)
def test_a_dataset_keeps_its_whole_digest_and_columns(
    registry: Registry, tmp_path: Path, name: str, digest: str
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / name).parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"user_id": ["u"], "value": [1.0]}), tmp_path / name)
    with registry.run("dataset") as run:
        run.log_dataset(folder=tmp_path, name="shop", digest=digest, rows=1, source="/original")
    (entry,) = registry.run_facts(run.id).data
    assert entry == {"name": "shop", "sha256": digest, "folder": str(tmp_path), "imported_from": "/original"}


def test_metrics_come_back_under_the_names_they_were_logged_with(registry: Registry) -> None:
    with registry.run("metrics", params={"a": {"b": {"c": 1}}}) as run:
        run.log_metrics({"ndcg@10": 0.5, "recall@500": 0.25, "not measured": None})
        run.log_table("evaluation", [{"model": "funnel", "ndcg@10": 0.5}, {"model": "popularity"}])
    facts = registry.run_facts(run.id)
    assert facts.metrics == {"ndcg@10": 0.5, "recall@500": 0.25}
    assert facts.params == {"a.b.c": "1"}


def test_names_that_are_not_there_are_not_found(registry: Registry, train: Train) -> None:
    train(registry, "there")
    for reference in ("streamrec-ranking@nobody", "models:/streamrec-ranking/9999"):
        with pytest.raises(NotFound):
            registry.resolve(reference)


def test_a_server_that_is_down_is_unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9"):
        Registry.open(Settings(home=tmp_path))


def test_a_run_whose_process_is_gone_is_marked_by_the_next(registry: Registry, train: Train) -> None:
    train(registry, "before")
    newest = registry.newest_run()
    abandoned = registry.run("abandoned")
    run = abandoned.__enter__()
    run.log_tags({STARTED: "another process had this pid"})
    with registry.run("the next"):
        assert registry.run_status(run.id) == "FAILED"
    assert registry.newest_run() == newest


def test_a_run_whose_process_lives_is_left_alone(registry: Registry) -> None:
    with registry.run("one") as one, registry.run("two"):
        assert registry.run_status(one.id) == "RUNNING"


@pytest.mark.slow
def test_a_killed_training_leaves_a_failed_run_and_no_version(
    registry: Registry, settings: Settings, train: Train
) -> None:
    train(registry, "before the kill")
    newest = registry.newest_run()
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from contracts.settings import Settings\n"
        "from registry.models import Registry\n"
        "with Registry.open(Settings(home=Path(sys.argv[1]))).run('killed') as run:\n"
        "    print(run.id, flush=True)\n"
        "    time.sleep(60)\n"
    )
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", code, str(settings.home)], stdout=subprocess.PIPE, text=True, cwd=root
    ) as process:
        assert process.stdout is not None
        run_id = process.stdout.readline().strip()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert registry.run_status(run_id) == "RUNNING"
    with registry.run("the next"):
        pass
    assert registry.run_status(run_id) == "FAILED"
    assert registry.newest_run() == newest


@pytest.mark.slow
def test_two_first_uses_of_a_new_database_do_not_race(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from contracts.settings import Settings\n"
        "from registry.models import Registry\n"
        "with Registry.open(Settings(home=Path(sys.argv[1]))).run('first'): pass\n"
    )
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", code, str(tmp_path / "home")]
    started = [subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in started:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
