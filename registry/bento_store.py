"""The Bento and model store under `home/bentoml`: what is in it, and models that come into it from MLflow.

Everything is made beside its place and renamed into it, so that a kill leaves nothing that looks whole.
"""

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import psutil
import yaml

from contracts import tracking
from contracts.errors import ArtifactError, NotFound, Refused
from registry.artifacts import KINDS, MANIFEST, Bundle, Kind, model_name, open_bundle, sha256_file, verify
from registry.mlflow_client import locked
from registry.versions import KIND_OF, ModelVersion

BENTO_NAME = "streamrec"
GATEWAY_NAME = "streamrec-gateway"


@dataclass(frozen=True, slots=True)
class StoredBento:
    """models: kind → (tag in the model store, folder). labels: as `build` wrote them."""

    tag: str
    folder: Path
    created: datetime
    labels: Mapping[str, str]
    models: Mapping[Kind, tuple[str, Path]]
    services: tuple[str, ...]


def bentoml_home(home: Path) -> Path:
    """`home/bentoml`, made if need be: the BENTOML_HOME of every command."""
    folder = home.resolve() / "bentoml"
    for name in ("bentos", "models", "tmp"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return folder


def stored_bento(tag: str | None, home: Path) -> StoredBento:
    """A Bento by tag (`streamrec:VERSION`, a bare version, or `streamrec:latest`; `streamrec-gateway:…`), or the latest
    recommender that was built.

    Raises:
        NotFound: no such Bento.
    """
    name, _, version = (tag or f"{BENTO_NAME}:latest").rpartition(":")
    kind = GATEWAY_NAME if GATEWAY_NAME in (name, version) else BENTO_NAME
    build = "streamrec build --service gateway" if kind == GATEWAY_NAME else "streamrec build"
    everything = bentos(home, kind)
    if version in ("latest", kind) and name in ("", kind):
        if everything:
            return everything[0]
        what = "gateway" if kind == GATEWAY_NAME else "Bento"
        raise NotFound(f"no {what} has been built in {home.resolve() / 'bentoml'}", next_command=build)
    for bento in everything:
        if bento.tag == f"{name or BENTO_NAME}:{version}":
            return bento
    store = home.resolve() / "bentoml"
    # Without the variable it would list another store, that of the user's home.
    raise NotFound(
        f"there is no Bento {tag} in {store}",
        next_command=f"BENTOML_HOME={shlex.quote(str(store))} bentoml list" if everything else build,
    )


def bentos(home: Path, name: str = BENTO_NAME) -> list[StoredBento]:
    """Newest first. What a killed build left behind is not among them."""
    found = []
    for path in (home.resolve() / "bentoml" / "bentos" / name).glob("*/bento.yaml"):
        document = yaml.safe_load(path.read_text())
        if isinstance(document, dict) and "name" in document:
            found.append(_stored(document, path.parent, home))
    return sorted(found, key=lambda bento: bento.created, reverse=True)


def bento_path(tag: str | None, home: Path) -> tuple[str, Path]:
    """(full tag, folder) of a Bento, the latest built when `tag` is None."""
    bento = stored_bento(tag, home)
    return bento.tag, bento.folder


def bundles_of(tag: str | None, home: Path) -> dict[Kind, Path]:
    """The folders of the three bundles that a Bento is pinned to, the latest built when `tag` is None.

    Raises:
        NotFound: no such Bento, or a model of it is gone from the store.
    """
    bento = stored_bento(tag, home)
    for kind in KINDS:
        model, folder = bento.models.get(kind, ("", Path()))
        if not model or not (folder / MANIFEST).exists():
            raise NotFound(
                f"{bento.tag} wants {model or model_name(kind)}, which is not in the model store",
                next_command="streamrec build",
            )
    return {kind: bento.models[kind][1] for kind in KINDS}


def model_tag(version: ModelVersion, bundle: Bundle) -> str:
    """`streamrec-retrieval:v3-1a2b3c4d`: the number in MLflow, and which content that was."""
    return f"{version.name}:v{version.number}-{sha256_file(bundle.folder / MANIFEST)[:8]}"


def import_model(version: ModelVersion, bundle: Bundle, home: Path) -> str:
    """Copy a registered version into the model store, once; returns its tag there.

    Raises:
        ArtifactError: the version's files are damaged.
        Refused: the store holds other content under this tag.
    """
    tag = model_tag(version, bundle)
    store = bentoml_home(home)
    target = store / "models" / tag.replace(":", "/")
    with locked(store / "streamrec.lock"):
        if target.exists():
            if sha256_file(bundle.folder / MANIFEST) != _manifest_digest(target):
                raise Refused(f"{target} is not the content of {version.uri}: remove it and build again")
            if (target / "model.yaml").exists() and not verify(open_bundle(target, version.kind)):
                _point_at_newest(target.parent)  # a kill may have come between the rename and this
                return tag
            shutil.rmtree(target)  # damaged since: the registered version is the truth
        if problems := verify(bundle):
            raise ArtifactError(f"the files of {version.uri} are damaged: {'; '.join(problems)}")
        with staging(store) as stage:
            _create(tag, version, bundle, stage)
            publish(stage, store / "models", tag)
            _point_at_newest(target.parent)
    return tag


def import_models(registry: Any, versions: Iterable[ModelVersion], home: Path) -> dict[Kind, str]:
    """`import_model` for each; `registry`: a `registry.models.Registry`, which knows where the files are."""
    return {version.kind: import_model(version, registry.bundle(version), home) for version in versions}


@contextmanager
def staging(store: Path) -> Iterator[Path]:
    """A folder on the store's file system that is gone afterwards; so are those of commands that were killed."""
    for left in (store / "tmp").glob("streamrec-*-*"):
        if not psutil.pid_exists(int(left.name.split("-")[1])):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"streamrec-{os.getpid()}-", dir=store / "tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(stage: Path, items: Path, tag: str) -> Path:
    """Rename `stage/NAME/VERSION` into `items` and make it that name's latest."""
    name, version = tag.split(":")
    target = items / name / version
    target.parent.mkdir(parents=True, exist_ok=True)
    (stage / name / version).rename(target)
    _point(target.parent, version)
    return target


def _point_at_newest(folder: Path) -> None:
    """A model's `latest`, which stock `bentoml build` pins, is the version that was registered last in MLflow, whatever
    came into the store last."""
    registered = {}
    for path in folder.glob("*/model.yaml"):
        metadata = yaml.safe_load(path.read_text()).get("metadata") or {}
        registered[path.parent.name] = int(metadata.get("registered_us", 0))
    _point(folder, max(registered, key=registered.__getitem__))


def _point(folder: Path, version: str) -> None:
    part = folder / "latest.part"
    part.write_text(version)
    part.rename(folder / "latest")


def _create(tag: str, version: ModelVersion, bundle: Bundle, stage: Path) -> None:
    tracking.off()
    import bentoml
    from bentoml._internal.models import ModelStore

    facts = {
        "mlflow_uri": version.uri,
        "run_id": version.run_id,
        "registered_us": str(version.created_us),
        "manifest_sha256": sha256_file(bundle.folder / MANIFEST),
        "feature_hash": bundle.manifest.feature_hash,
        **{
            key: version.tags[key]
            for key in ("git_commit", "git_dirty", "data_name", "data_digest", "readiness", "environment_digest")
            if version.tags.get(key)
        },
    }
    with bentoml.models.create(tag, labels=facts, metadata=facts, _model_store=ModelStore(stage)) as model:
        shutil.copytree(bundle.folder, model.path, dirs_exist_ok=True)


def _stored(document: dict[str, Any], folder: Path, home: Path) -> StoredBento:
    models: dict[Kind, tuple[str, Path]] = {}
    for entry in document.get("models") or ():
        tag = str(entry["tag"])
        kind = KIND_OF.get(tag.partition(":")[0])
        if kind is not None:
            models[kind] = (tag, home.resolve() / "bentoml" / "models" / tag.replace(":", "/"))
    created = document.get("creation_time")
    if isinstance(created, str):
        created = datetime.fromisoformat(created)
    if not isinstance(created, datetime):
        created = datetime.fromtimestamp(0, UTC)
    return StoredBento(
        tag=f"{document['name']}:{document['version']}",
        folder=folder,
        created=created if created.tzinfo else created.replace(tzinfo=UTC),
        labels=cast(dict[str, str], document.get("labels") or {}),
        models=models,
        services=tuple(service["name"] for service in document.get("services") or ()),
    )


def _manifest_digest(folder: Path) -> str:
    path = folder / MANIFEST
    return sha256_file(path) if path.exists() else ""
