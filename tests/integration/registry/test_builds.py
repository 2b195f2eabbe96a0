"""Real BentoML builds of a stand-in service: small, but with the graph of four services."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from contracts.checklist import CHECKLIST
from contracts.errors import ArtifactError, NotFound, Refused, StreamRecError
from contracts.settings import Settings
from registry.artifacts import KINDS, MANIFEST
from registry.bento_store import bento_path, bentoml_home, bentos, bundles_of, import_models, stored_bento
from registry.builds import bentofile, build, gateway_bento, make_plan
from registry.evidence import ONE_RUN
from registry.lineage import lineage
from registry.models import ModelVersion, Registry
from registry.verification import verify_bento, verify_versions
from tests.integration.registry.conftest import DATA_DIGEST, MakeBundles, Train

ROOT = Path(__file__).parents[3]
SERVICE = """
import os
import time
from pathlib import Path

import bentoml

if os.environ.get("STAND_IN_WAITS"):
    Path(os.environ["STAND_IN_WAITS"]).touch()
    time.sleep(60)


@bentoml.service
class Retrieval: ...


@bentoml.service
class Ranking: ...


@bentoml.service
class Fallback: ...


@bentoml.service
class Recommender:
    if os.environ.get("STREAMREC_TOPOLOGY") == "distributed":
        retrieval = bentoml.depends(Retrieval)
        ranking = bentoml.depends(Ranking)
        fallback = bentoml.depends(Fallback)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the project's own bentofile and locks, and the stand-in for its service."""
    root = tmp_path_factory.mktemp("checkout")
    (root / "bentos" / "recommender").mkdir(parents=True)
    (root / "bentos" / "recommender" / "service.py").write_text(SERVICE)
    (root / "bentos" / "secret.txt").write_text("not part of a Bento")
    (root / "registry").mkdir()
    for name in ("__init__.py", "artifacts.py", "models.py"):
        (root / "registry" / name).write_text("")
    (root / "bentofile.yaml").write_text((ROOT / "bentofile.yaml").read_text())
    (root / "deploy").mkdir()
    for path in (ROOT / "deploy").glob("*.*"):
        (root / "deploy" / path.name).write_text(path.read_text())
    return root


@pytest.fixture(scope="module")
def home(settings: Settings) -> Path:
    return settings.home


def test_without_any_bento_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no Bento has been built") as error:
        stored_bento(None, tmp_path)
    assert error.value.next_command == "streamrec build"


def test_a_bento_pins_the_newest_run_and_carries_its_lineage(
    registry: Registry, settings: Settings, home: Path, root: Path, train: Train
) -> None:
    versions = train(registry, "build")
    plan = make_plan(registry, root=root)
    bento = build(plan, home)

    assert set(bento.services) == {"Recommender", "Retrieval", "Ranking", "Fallback"}
    for kind, version in versions.items():
        assert bento.labels[f"mlflow.{kind}"] == version.uri
        assert bento.labels[f"run.{kind}"] == version.run_id
        assert bento.models[kind][0].startswith(f"{version.name}:v{version.number}-")
    assert bento.labels["readiness"] == "pass"
    assert {bento.labels[f"ready.{name}"] for name in [*(item.name for item in CHECKLIST), ONE_RUN]} == {"pass"}
    assert bento.labels["data_digest"] == DATA_DIGEST
    assert bento.labels["device"] == "cpu"
    assert bento_path(None, home) == (bento.tag, bento.folder)
    assert stored_bento("latest", home) == stored_bento(bento.tag, home) == bento
    assert {kind: (path / MANIFEST).exists() for kind, path in bundles_of(bento.tag, home).items()} == dict.fromkeys(
        KINDS, True
    )

    files = {str(path.relative_to(bento.folder / "src")) for path in (bento.folder / "src").rglob("*.*")}
    assert files == {
        "bentofile.yaml",
        "bentos/recommender/service.py",
        "registry/__init__.py",
        "registry/artifacts.py",
    }
    assert "StreamRec recommender" in (bento.folder / "README.md").read_text()
    installed = (bento.folder / "env" / "python" / "requirements.txt").read_text()
    assert "onnxruntime==" in installed
    dockerfile = (bento.folder / "env" / "docker" / "Dockerfile").read_text()
    assert "FROM python:3.11-slim" in dockerfile
    assert "\nUSER bentoml" in dockerfile
    assert "ARG STREAMREC_TOPOLOGY=colocated" in dockerfile
    assert "ARG STREAMREC_HOST=0.0.0.0" in dockerfile
    scripts = bento.folder / "env" / "docker"
    assert (scripts / "entrypoint.sh").read_text() == (ROOT / "deploy" / "entrypoint.sh").read_text()
    assert "bentoml serve" in (scripts / "bentoml-entrypoint.sh").read_text()

    tree = lineage(bento.tag, registry, settings)
    assert [child.name for child in tree.children] == [versions[kind].uri for kind in KINDS]
    run = tree.children[0].children[0]
    assert (run.kind, run.name) == ("run", versions["retrieval"].run_id)
    assert {child.kind for child in run.children} == {"data", "code"}
    assert next(c for c in run.children if c.kind == "data").facts["sha256"] == DATA_DIGEST
    assert not any(finding.problems for finding in verify_bento(bento))

    # What BentoML itself says of the result.
    environment = {**os.environ, "BENTOML_HOME": str(bentoml_home(home))}
    command = [sys.executable, "-m", "bentoml", "get", bento.tag, "-o", "yaml"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert yaml.safe_load(said.stdout)["entry_service"] == "Recommender"


def test_a_gpu_bento_has_its_own_lock_and_a_cuda_base(registry: Registry, home: Path, root: Path, train: Train) -> None:
    train(registry, "gpu")
    bento = build(make_plan(registry, device="gpu", root=root), home)
    installed = (bento.folder / "env" / "python" / "requirements.txt").read_text()
    assert "onnxruntime-gpu==" in installed
    assert "onnxruntime==" not in installed
    assert _names(installed) == _names((root / "deploy" / "requirements-serve-gpu.txt").read_text())
    cpu = _names((root / "deploy" / "requirements-serve.txt").read_text())
    assert cpu - _names(installed) == {"onnxruntime"}  # nothing else of what serves is missing there
    dockerfile = (bento.folder / "env" / "docker" / "Dockerfile").read_text()
    assert "FROM nvidia/cuda:13" in dockerfile
    assert "python3-pip" in dockerfile
    assert "uv venv --python 3.11" in dockerfile
    # A GPU is given batches: the ranker in a process of its own.
    for name, value in (("STREAMREC_DEVICE", "gpu"), ("STREAMREC_TOPOLOGY", "distributed")):
        assert f"ARG {name}={value}" in dockerfile
        assert f"ENV {name}=${name}" in dockerfile
    assert "\nUSER bentoml" in dockerfile
    assert bento.labels["device"] == "gpu"


def test_pins_name_versions_by_number_or_alias(registry: Registry, root: Path, train: Train) -> None:
    first, second = train(registry, "same"), train(registry, "same")
    plan = make_plan(registry, {"ranking": first["ranking"].uri}, root=root)
    assert plan.versions["ranking"].number == first["ranking"].number
    assert plan.versions["retrieval"].number == second["retrieval"].number
    assert plan.labels["ready.one_run"] == plan.readiness == "inconclusive"  # it fits, and shows
    document = bentofile(plan)
    assert document["models"] == list(plan.model_tags.values())
    plan = make_plan(registry, {"fallback": "streamrec-fallback@challenger"}, root=root)
    assert plan.versions["fallback"].number == second["fallback"].number


def test_versions_that_do_not_fit_are_refused_by_name_and_nothing_is_written(
    registry: Registry, home: Path, root: Path, train: Train, make_bundles: MakeBundles
) -> None:
    other = train(registry, "other", make_bundles("other", catalogue_hash="e" * 64))
    train(registry, "usual")
    before = sorted(str(path) for path in (home / "bentoml").rglob("*"))
    with pytest.raises(Refused) as error:
        make_plan(registry, {"ranking": other["ranking"].uri}, root=root)
    assert other["ranking"].uri in error.value.message
    assert "ranking has eeeeeeeeeeee" in error.value.message
    assert error.value.exit_code == 3
    assert sorted(str(path) for path in (home / "bentoml").rglob("*")) == before


def test_models_of_other_feature_definitions_than_the_codes_are_refused(
    registry: Registry, root: Path, train: Train, make_bundles: MakeBundles
) -> None:
    train(registry, "old features", make_bundles("old features", feature_hash="0" * 64))
    with pytest.raises(Refused, match="000000000000, the features of this code have"):
        make_plan(registry, root=root)
    train(registry, "today's features")


def test_missing_evidence_does_not_stop_a_build_but_shows(registry: Registry, root: Path, train: Train) -> None:
    versions = train(registry, "without evidence")
    (registry.bundle(versions["ranking"]).folder.parent / "evidence.json").unlink()
    assert make_plan(registry, root=root).readiness == "inconclusive"
    (finding,) = [f for f in verify_versions(registry, versions.values()) if f.problems]
    assert (finding.name, finding.problems) == (versions["ranking"].uri, ("carries no evidence",))


def test_damage_is_found_by_verification_and_stops_a_build(registry: Registry, root: Path, train: Train) -> None:
    versions = train(registry, "damage")
    (registry.bundle(versions["fallback"]).folder / "weights.json").write_text("{}")
    findings = {finding.name: finding.problems for finding in verify_versions(registry, versions.values())}
    assert findings[versions["fallback"].uri] == ("weights.json does not match its checksum",)
    assert findings[versions["ranking"].uri] == ()
    with pytest.raises(ArtifactError, match="streamrec-fallback/"):
        make_plan(registry, root=root)
    train(registry, "whole again")


def test_a_model_is_imported_once_and_mended_when_damaged(registry: Registry, home: Path, train: Train) -> None:
    versions = train(registry, "import")
    tags = import_models(registry, versions.values(), home)
    stored = home / "bentoml" / "models" / tags["ranking"].replace(":", "/")
    made = (stored / "model.yaml").stat().st_mtime_ns
    assert import_models(registry, versions.values(), home) == tags
    assert (stored / "model.yaml").stat().st_mtime_ns == made
    metadata = yaml.safe_load((stored / "model.yaml").read_text())["metadata"]
    assert metadata["mlflow_uri"] == versions["ranking"].uri
    assert metadata["run_id"] == versions["ranking"].run_id

    (stored / "weights.json").write_text("{}")
    import_models(registry, versions.values(), home)
    assert (stored / "weights.json").read_text() != "{}"


def test_the_latest_stored_model_is_the_newest_in_mlflow_whatever_came_in_last(
    registry: Registry, home: Path, train: Train
) -> None:
    older, newer = train(registry, "older"), train(registry, "newer")
    tags = import_models(registry, newer.values(), home)
    latest = home / "bentoml" / "models" / "streamrec-ranking" / "latest"
    latest.write_text("as a kill may leave it")
    import_models(registry, older.values(), home)
    assert latest.read_text() == tags["ranking"].split(":")[1]


def test_what_a_killed_command_left_in_staging_is_swept(registry: Registry, home: Path, train: Train) -> None:
    left = bentoml_home(home) / "tmp" / "streamrec-4194305-left"  # above the largest process id there can be
    left.mkdir()
    import_models(registry, train(registry, "after a kill").values(), home)
    assert not left.exists()


def test_what_bentoml_says_of_a_broken_service_is_in_the_error(
    registry: Registry, home: Path, root: Path, train: Train, tmp_path: Path
) -> None:
    import shutil

    train(registry, "broken service")
    broken = tmp_path / "checkout"
    shutil.copytree(root, broken)
    (broken / "bentos" / "recommender" / "service.py").write_text("import nothing_of_that_name\n")
    before = [bento.tag for bento in bentos(home)]
    with pytest.raises(StreamRecError, match="nothing_of_that_name"):
        build(make_plan(registry, root=broken), home)
    assert [bento.tag for bento in bentos(home)] == before
    assert not list((home / "bentoml" / "tmp").iterdir())


@pytest.mark.slow
def test_a_build_that_is_killed_leaves_nothing_and_works_again(
    registry: Registry, home: Path, root: Path, train: Train, tmp_path: Path
) -> None:
    train(registry, "killed build")
    before = [bento.tag for bento in bentos(home)]
    reached = tmp_path / "reached"
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from contracts.settings import Settings\n"
        "from registry.builds import build, make_plan\n"
        "from registry.models import Registry\n"
        "home, root = map(Path, sys.argv[1:])\n"
        "build(make_plan(Registry.open(Settings(home=home)), root=root), home)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(home), str(root)],
        cwd=ROOT,
        env={**os.environ, "STAND_IN_WAITS": str(reached)},
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not reached.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert reached.exists()
        os.killpg(process.pid, signal.SIGKILL)
    assert [bento.tag for bento in bentos(home)] == before
    assert list((home / "bentoml" / "tmp").iterdir())
    bento = build(make_plan(registry, root=root), home)
    assert bentos(home)[0] == bento
    assert not list((home / "bentoml" / "tmp").iterdir())


def test_stock_bentoml_build_packs_the_real_service(registry: Registry, home: Path, train: Train) -> None:
    versions: dict[str, ModelVersion] = dict(train(registry, "stock"))  # type: ignore[arg-type]
    import_models(registry, versions.values(), home)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STREAMREC_")}
    environment |= {"BENTOML_HOME": str(bentoml_home(home)), "STREAMREC_TOPOLOGY": "distributed"}
    command = [sys.executable, "-m", "bentoml", "build", "--output", "tag", str(ROOT)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    tag = done.stdout.strip().removeprefix("__tag__:")
    bento = stored_bento(tag, home)
    assert set(bento.services) == {"Recommender", "Retrieval", "Ranking", "Fallback"}
    assert {kind: bento.models[kind][0].split("-")[1] for kind in KINDS} == {
        kind: f"{kind}:v{versions[kind].number}" for kind in KINDS
    }
    top = {path.name for path in (bento.folder / "src").iterdir()}
    assert top == {"bentofile.yaml", "bentos", "contracts", "features", "registry"}
    assert {path.name for path in (bento.folder / "src" / "registry").iterdir()} == {"__init__.py", "artifacts.py"}


def test_a_gateway_s_bento_has_no_models_and_is_built_once_for_one_code(tmp_path: Path) -> None:
    first = gateway_bento(tmp_path)
    assert first.tag.startswith("streamrec-gateway:")
    assert (dict(first.models), first.services) == ({}, ("Gateway",))
    assert (first.folder / "src" / "bentos" / "gateway" / "service.py").exists()
    assert gateway_bento(tmp_path).tag == first.tag
    assert stored_bento("streamrec-gateway:latest", tmp_path).tag == stored_bento(first.tag, tmp_path).tag == first.tag
    with pytest.raises(NotFound, match="no Bento has been built"):
        stored_bento(None, tmp_path)


def _names(requirements: str) -> set[str]:
    return {line.partition("==")[0].strip() for line in requirements.splitlines() if "==" in line}
