"""A Bento: this code and three pinned model versions that fit one another."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from contracts import tracking
from contracts.errors import ArtifactError, NotFound, Refused, StreamRecError
from contracts.evidence import Verdict
from registry.artifacts import KINDS, Bundle, Kind, fit_problems, verify
from registry.bento_store import (
    BENTO_NAME,
    GATEWAY_NAME,
    StoredBento,
    bento_path,
    bentoml_home,
    bentos,
    bundles_of,
    import_model,
    import_models,
    model_tag,
    publish,
    staging,
    stored_bento,
)
from registry.environment import CodeState, code_root, code_state
from registry.evidence import item_verdicts, joint_readiness
from registry.mlflow_client import locked
from registry.models import Registry
from registry.versions import ModelVersion

__all__ = ["Plan", "bento_path", "bentoml_home", "build", "bundles_of", "import_model", "import_models", "make_plan"]

Device = Literal["cpu", "gpu"]
BENTOFILE = "bentofile.yaml"
GATEWAY_FILE = "bentofile.gateway.yaml"
GPU = "deploy/gpu.yaml"
ENTRY_POINT = "deploy/entrypoint.sh"
# What serving needs, as far as folders say it; `include` in bentofile.yaml has the last word.
SERVING = ("bentos", "contracts", "features", "registry", "deploy")


@dataclass(frozen=True, slots=True)
class Plan:
    """What `build` will do: nothing has been written yet."""

    versions: Mapping[Kind, ModelVersion]
    bundles: Mapping[Kind, Bundle]
    device: Device
    readiness: Verdict
    checklist: Mapping[str, str]
    feature_hash: str
    code: CodeState
    root: Path

    @property
    def model_tags(self) -> dict[Kind, str]:
        return {kind: model_tag(self.versions[kind], self.bundles[kind]) for kind in KINDS}

    @property
    def labels(self) -> dict[str, str]:
        """Of the Bento and of its image: from a running service back to what made it."""
        first = self.versions["retrieval"]
        return {
            **{f"mlflow.{kind}": self.versions[kind].uri for kind in KINDS},
            **{f"run.{kind}": self.versions[kind].run_id for kind in KINDS},
            "git_commit": self.code.commit,
            "git_dirty": str(self.code.dirty).lower(),
            "code_digest": self.code.digest,
            "feature_hash": self.feature_hash,
            "catalogue_hash": self.bundles["retrieval"].manifest.catalogue_hash,
            "data_digest": first.tags.get("data_digest", ""),
            "readiness": self.readiness,
            **{f"ready.{item}": verdict for item, verdict in self.checklist.items()},
            "device": self.device,
        }


def make_plan(
    registry: Registry,
    pins: Mapping[Kind, str] | None = None,
    device: Device = "cpu",
    *,
    root: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Resolve pins (a kind that is not pinned: the newest run's), read every file, check that all fits. Writes nothing.

    Raises:
        NotFound: no such version, no finished training, or no `bentofile.yaml` beside the code.
        ArtifactError: a version's files are missing or damaged.
        Refused: the three versions, or they and this code, do not fit.
    """
    root = root or code_root()
    if not (root / BENTOFILE).exists():
        raise NotFound(f"{root} has no {BENTOFILE}: a Bento is built from a checkout of the project")
    pins = pins or {}
    newest = registry.newest_run() if set(pins) != set(KINDS) else {}
    versions = {kind: registry.resolve(pins[kind], kind) if kind in pins else newest[kind] for kind in KINDS}
    bundles: dict[Kind, Bundle] = {}
    for kind, version in versions.items():
        say(f"verifying {version.uri}")
        bundles[kind] = registry.bundle(version)
        if problems := verify(bundles[kind]):
            raise ArtifactError(
                f"the files of {version.uri} are damaged: {'; '.join(problems)}", next_command="streamrec models verify"
            )
    if problems := fit(versions, bundles):
        raise Refused(
            "these do not fit one another: " + "; ".join(problems),
            next_command="pin versions of one run, or train again: streamrec train --data DIR",
        )
    documents = {version.name: registry.evidence(version) for version in versions.values()}
    return Plan(
        versions=versions,
        bundles=bundles,
        device=device,
        readiness=joint_readiness(documents.values()),
        checklist=item_verdicts(documents),
        feature_hash=bundles["retrieval"].manifest.feature_hash,
        code=code_state(root),
        root=root,
    )


def fit(versions: Mapping[Kind, ModelVersion], bundles: Mapping[Kind, Bundle]) -> list[str]:
    """Why these versions cannot serve together, or with this code's features. Empty when they can."""
    from features.registry import REGISTRY

    named = ", ".join(version.uri for version in versions.values())
    problems = [f"{problem} (of {named})" for problem in fit_problems([bundles[kind] for kind in KINDS])]
    theirs = bundles["retrieval"].manifest.feature_hash
    if theirs != REGISTRY.hash:
        problems.append(
            f"feature_hash: {versions['retrieval'].uri} has {theirs[:12]}, the features of this code have "
            f"{REGISTRY.hash[:12]}"
        )
    return problems


def build(plan: Plan, home: Path, *, say: Callable[[str], None] = lambda _: None) -> StoredBento:
    """Import the pinned versions and make the Bento. A kill leaves no half of one: the same command works again.

    Raises:
        StreamRecError: BentoML could not build it; its own words are in the message.
    """
    for kind in KINDS:
        say(f"importing {plan.versions[kind].uri}")
        import_model(plan.versions[kind], plan.bundles[kind], home)
    return _make(bentofile(plan), plan.root, home, say, entry_point=ENTRY_POINT)


def build_gateway(home: Path, *, root: Path | None = None, say: Callable[[str], None] = lambda _: None) -> StoredBento:
    """A Bento of the gateway: this code, and no models.

    Raises:
        NotFound: no `bentofile.gateway.yaml` beside the code. StreamRecError: BentoML could not build it.
    """
    from features.registry import REGISTRY

    root = root or code_root()
    if not (root / GATEWAY_FILE).exists():
        raise NotFound(f"{root} has no {GATEWAY_FILE}: a Bento is built from a checkout of the project")
    code = code_state(root)
    document: dict[str, Any] = yaml.safe_load((root / GATEWAY_FILE).read_text())
    document["name"] = GATEWAY_NAME
    document["labels"] = {
        **document.get("labels", {}),
        "git_commit": code.commit,
        "git_dirty": str(code.dirty).lower(),
        "code_digest": code.digest,
        "feature_hash": REGISTRY.hash,
    }
    return _make(document, root, home, say)


def gateway_bento(home: Path, *, root: Path | None = None, say: Callable[[str], None] = lambda _: None) -> StoredBento:
    """The gateway of this very code: the one that was built already, else a new one."""
    digest = code_state(root or code_root()).digest
    for bento in bentos(home, GATEWAY_NAME):
        if bento.labels.get("code_digest") == digest:
            return bento
    return build_gateway(home, root=root, say=say)


def _make(
    document: Mapping[str, Any],
    root: Path,
    home: Path,
    say: Callable[[str], None],
    *,
    entry_point: str | None = None,
) -> StoredBento:
    """`bentoml build` on a copy of the code, then one rename into the store.

    entry_point: what an image starts, in the place of BentoML's own script.
    """
    store = bentoml_home(home)
    name = str(document["name"])
    # Not below home: BentoML refuses a build context in a hidden folder, and `.streamrec` is one.
    with staging(store) as stage, tempfile.TemporaryDirectory(prefix="streamrec-build-") as temporary:
        context = Path(temporary) / "context"
        _copy_code(root, context)
        (context / BENTOFILE).write_text(yaml.safe_dump(dict(document), sort_keys=False))
        private = stage / "home"  # a store of its own, so that the finished Bento is renamed into the shared one
        (private / "bentos").mkdir(parents=True)
        (private / "models").symlink_to(store / "models")
        say("building the Bento")
        _bentoml_build(context, private)
        made = [path.parent for path in (private / "bentos" / name).glob("*/bento.yaml")]
        if len(made) != 1:
            raise StreamRecError(f"bentoml build made {len(made)} Bentos, wanted one")
        if entry_point is not None:
            _replace_entry_point(made[0], context / entry_point)
        tag = f"{name}:{made[0].name}"
        with locked(store / "streamrec.lock"):
            publish(private / "bentos", store / "bentos", tag)
    return stored_bento(tag, home)


def bentofile(plan: Plan) -> dict[str, Any]:
    """`bentofile.yaml` with the plan's pins, labels and device."""
    document: dict[str, Any] = yaml.safe_load((plan.root / BENTOFILE).read_text())
    document["name"] = BENTO_NAME
    document["models"] = list(plan.model_tags.values())
    document["labels"] = {**document.get("labels", {}), **plan.labels}
    if plan.device == "gpu":
        gpu = yaml.safe_load((plan.root / GPU).read_text())
        document["python"] = {**document["python"], **gpu["python"]}
        document["docker"] = gpu["docker"]  # distro and Python version are the base image's
        envs = {entry["name"]: entry["value"] for entry in document["envs"]} | gpu["envs"]
        document["envs"] = [{"name": name, "value": value} for name, value in envs.items()]
    return document


def _copy_code(root: Path, context: Path) -> None:
    """A clean copy: no caches, no data, no other people's half-written files beside the packages."""
    for name in SERVING:
        if (root / name).is_dir():
            shutil.copytree(root / name, context / name, ignore=shutil.ignore_patterns("__pycache__", "*.part"))


def _replace_entry_point(bento: Path, script: Path) -> None:
    """The Dockerfile names this file, and BentoML 1.4 has no option for another: a `dockerfile_template` makes it a
    Bento of the old format, whose Dockerfile knows neither `envs` nor packages for a base image.
    """
    folder = bento / "env" / "docker"
    (folder / "entrypoint.sh").rename(folder / "bentoml-entrypoint.sh")
    shutil.copy(script, folder / "entrypoint.sh")


def _bentoml_build(context: Path, home: Path) -> None:
    """Stock `bentoml build` in a process of its own: it imports the service, and so must not meet our modules."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STREAMREC_")}
    environment |= {
        "BENTOML_HOME": str(home),
        **tracking.OFF,
        "PYTHONDONTWRITEBYTECODE": "1",
        # The Bento's description then lists all services; which topology runs is chosen when it is served.
        "STREAMREC_TOPOLOGY": "distributed",
    }
    command = [sys.executable, "-m", "bentoml", "build", "--output", "tag", str(context)]
    done = subprocess.run(command, cwd=context, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        words = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise StreamRecError("bentoml build failed:\n  " + "\n  ".join(words[-12:]))
