"""The model registry: three registered models in MLflow, their versions, files, evidence and lineage."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from contracts.errors import ArtifactError, NotFound
from contracts.evidence import Check, Evidence
from contracts.settings import Settings
from registry import evidence as evidence_document
from registry.artifacts import KINDS, Bundle, Kind, model_name, open_bundle
from registry.metric_names import metric_label
from registry.mlflow_client import EXPERIMENT, artifact_location, connect, locked, translated
from registry.registration import Lineage
from registry.runs import Run, open_run
from registry.signatures import BUNDLE_FOLDER
from registry.versions import ModelRef, ModelVersion, parse_ref

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["Lineage", "ModelVersion", "Registry", "Run", "RunFacts"]


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What lineage says of a run. data: the datasets that it read, each with name, sha256 and source."""

    run_id: str
    name: str
    status: str
    started_us: int
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    data: tuple[Mapping[str, str], ...]


class Registry:
    """Reads and writes MLflow. Cheap to open, except for the first use of a new database (about 3 s)."""

    def __init__(self, client: "MlflowClient", settings: Settings) -> None:
        self._client = client
        self._settings = settings

    @classmethod
    def open(cls, settings: Settings) -> "Registry":
        """
        Raises:
            Unreachable: the server or the database does not answer.
        """
        return cls(connect(settings), settings)

    def run(
        self,
        name: str,
        *,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> AbstractContextManager[Run]:
        """A new run; earlier runs of this machine that were killed are marked FAILED."""
        return open_run(
            self._client, name, params=params or {}, tags=tags or {}, location=artifact_location(self._settings)
        )

    def versions(self, kind: Kind) -> list[ModelVersion]:
        """Newest first; empty before the first training."""
        name = model_name(kind)
        with translated(f"versions of {name}"):
            rows: list[Any] = []
            token = None
            while True:
                page = self._client.search_model_versions(f"name='{name}'", max_results=1000, page_token=token)
                rows.extend(page)
                token = page.token
                if not token:
                    break
            aliases = self._aliases(kind) if rows else {}
        return sorted((_version(kind, row, aliases) for row in rows), key=lambda v: -v.number)

    def resolve(self, text: str | ModelRef, kind: Kind | None = None) -> ModelVersion:
        """The version that a URI or an alias names now.

        Raises:
            UsageError: not a model reference.
            NotFound: no such model, version or alias.
        """
        ref = parse_ref(text, kind) if isinstance(text, str) else text
        versions = self.versions(ref.kind)
        for version in versions:
            if ref.number == 0 or version.number == ref.number or (ref.alias and ref.alias in version.aliases):
                return version
        what = f"no version of {model_name(ref.kind)} is registered" if not versions else f"there is no {ref}"
        raise NotFound(what, next_command="streamrec models list" if versions else "streamrec train --data DIR")

    def newest_run(self) -> dict[Kind, ModelVersion]:
        """The three versions of the newest finished run that registered all three.

        Raises:
            NotFound: there is no such run.
        """
        by_run = {kind: {v.run_id: v for v in reversed(self.versions(kind))} for kind in KINDS}
        for version in self.versions("retrieval"):
            trio = {kind: by_run[kind].get(version.run_id) for kind in KINDS}
            if all(trio.values()) and self.run_status(version.run_id) == "FINISHED":
                return {kind: v for kind, v in trio.items() if v}
        raise NotFound(
            f"no finished training is registered in {self._settings.mlflow_uri}",
            next_command="streamrec train --data DIR",
        )

    def last_run(self) -> RunFacts | None:
        """The run that began last, whatever became of it."""
        with translated("the runs"):
            experiment = self._client.get_experiment_by_name(EXPERIMENT)
            if experiment is None:
                return None
            ids = [experiment.experiment_id]
            found = self._client.search_runs(ids, max_results=1, order_by=["attributes.start_time DESC"])
        return self.run_facts(found[0].info.run_id) if found else None

    def run_status(self, run_id: str) -> str:
        with translated(f"run {run_id}"):
            return str(self._client.get_run(run_id).info.status)

    def run_facts(self, run_id: str) -> RunFacts:
        with translated(f"run {run_id}"):
            run = self._client.get_run(run_id)
        data = []
        for entry in run.inputs.dataset_inputs if run.inputs else ():
            tags = {t.key: t.value for t in entry.tags}
            source = json.loads(entry.dataset.source or "{}")
            data.append(
                {
                    "name": entry.dataset.name,
                    "sha256": tags.get("sha256", entry.dataset.digest),
                    "folder": source.get("uri", ""),
                    "imported_from": source.get("imported_from", ""),
                }
            )
        return RunFacts(
            run_id,
            run.info.run_name or "",
            str(run.info.status),
            int(run.info.start_time) * 1000,
            dict(run.data.params),
            {metric_label(name): value for name, value in run.data.metrics.items()},
            {key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")},
            tuple(data),
        )

    def run_folder(self, run_id: str, name: str) -> Path | None:
        """An artefact folder of a run on this machine: in place, or downloaded once into `home/cache/runs`; None where
        the run has none.

        Raises:
            NotFound: there is no such run.
        """
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        with translated(f"run {run_id}"):
            uri = str(self._client.get_run(run_id).info.artifact_uri)
        parsed = urlparse(uri)
        if parsed.scheme in ("", "file"):
            path = Path(unquote(parsed.path)) / name
            return path if path.is_dir() else None
        target = self._settings.home / "cache" / "runs" / run_id / name
        if target.exists():
            return target
        with translated(f"run {run_id}"):
            if not self._client.list_artifacts(run_id, name):
                return None
        with locked(self._settings.home / "cache" / "runs.lock"), _temporary(self._settings.home) as part:
            try:
                got = download_artifacts(
                    run_id=run_id, artifact_path=name, dst_path=str(part), tracking_uri=self._settings.mlflow_uri
                )
            except MlflowException as error:
                raise ArtifactError(f"run {run_id}: {name} cannot be downloaded: {error}") from error
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                Path(got).rename(target)
        return target

    def run_document(self, run_id: str, name: str) -> Any:
        """A JSON artefact of a run; None where the run has none of that name.

        Raises:
            NotFound: there is no such run. ArtifactError: it is no JSON.
        """
        from mlflow.artifacts import load_text
        from mlflow.exceptions import MlflowException

        with translated(f"run {run_id}"):
            uri = str(self._client.get_run(run_id).info.artifact_uri)
        parsed = urlparse(uri)
        try:
            if parsed.scheme in ("", "file"):
                path = Path(unquote(parsed.path)) / name
                return json.loads(path.read_bytes()) if path.is_file() else None
            return json.loads(load_text(f"{uri.rstrip('/')}/{name}"))
        except ValueError as error:
            raise ArtifactError(f"run {run_id}: {name} is no JSON: {error}") from error
        except (MlflowException, OSError):
            return None

    def bundle(self, version: ModelVersion) -> Bundle:
        """The version's files as a local folder: in place, or downloaded once into `home/cache/models`.

        Raises:
            ArtifactError: the files are gone or have no manifest.
        """
        return open_bundle(self._folder(version) / BUNDLE_FOLDER, version.kind)

    def evidence(self, version: ModelVersion) -> Evidence | None:
        """None when the version has none (it was registered by other means)."""
        from mlflow.artifacts import load_text
        from mlflow.exceptions import MlflowException

        local = _local(version.source)
        where = f"{version.uri}/{evidence_document.EVIDENCE}"
        if local is not None:
            path = local / evidence_document.EVIDENCE
            return evidence_document.parse(path.read_bytes(), where) if path.exists() else None
        try:
            text = load_text(f"{version.source.rstrip('/')}/{evidence_document.EVIDENCE}")
        except (MlflowException, OSError):
            return None
        return evidence_document.parse(text, where)

    def add_checks(self, version: ModelVersion, checks: Sequence[Check]) -> Evidence:
        """Merge later checks into the version's evidence, and its `readiness` tag with them."""
        with locked(self._settings.home / "evidence.lock"):
            current = self.evidence(version) or evidence_document.document(version.name, version.run_id, ())
            document = evidence_document.merged(current, checks)
            self._write_evidence(version, document)
        with translated(f"evidence of {version.uri}"):
            self._client.set_model_version_tag(version.name, str(version.number), "readiness", document.readiness)
        return document

    def _write_evidence(self, version: ModelVersion, document: Evidence) -> None:
        self.write_files(version, {evidence_document.EVIDENCE: document.model_dump_json(indent=2)})

    def write_files(self, version: ModelVersion, texts: Mapping[str, str]) -> None:
        """Put files beside the version's bundle, in place of those of the same name."""
        local = _local(version.source)
        if local is not None:
            for name, text in texts.items():
                part = local / f"{name}.part"
                part.write_text(text)
                part.rename(local / name)
            return
        with translated(f"the files of {version.uri}"), _temporary(self._settings.home) as folder:
            for name, text in texts.items():
                (folder / name).write_text(text)
            self._client.log_model_artifacts(version.model_id, str(folder))

    def _folder(self, version: ModelVersion) -> Path:
        local = _local(version.source)
        if local is not None:
            return local
        target = self._settings.home / "cache" / "models" / version.name / f"{version.number}-{version.run_id}"
        if target.exists():
            return target
        from mlflow.artifacts import download_artifacts

        with locked(self._settings.home / "cache" / "models.lock"):
            if target.exists():
                return target
            part = target.with_name(target.name + ".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            with translated(f"downloading {version.uri}"):
                got = download_artifacts(
                    artifact_uri=version.source, dst_path=str(part), tracking_uri=self._settings.mlflow_uri
                )
            Path(got).rename(target)
            shutil.rmtree(part, ignore_errors=True)
        return target

    def _aliases(self, kind: Kind) -> dict[int, tuple[str, ...]]:
        """Version number → aliases. A search of versions does not carry them."""
        found: dict[int, tuple[str, ...]] = {}
        for alias, number in self._client.get_registered_model(model_name(kind)).aliases.items():
            found[int(number)] = (*found.get(int(number), ()), alias)
        return found


def _version(kind: Kind, row: Any, aliases: Mapping[int, tuple[str, ...]]) -> ModelVersion:
    number = int(row.version)
    tags = dict(row.tags or {})
    return ModelVersion(
        kind,
        number,
        row.run_id or "",
        row.source,
        tags.get("model_id", ""),
        int(row.creation_timestamp) * 1000,
        tags,
        tuple(sorted(aliases.get(number, ()))),
    )


def _local(source: str) -> Path | None:
    """A path when `source` is on this machine.

    Raises:
        ArtifactError: it should be, and is gone.
    """
    parsed = urlparse(source)
    if parsed.scheme not in ("", "file"):
        return None
    path = Path(unquote(parsed.path))
    if not path.is_dir():
        raise ArtifactError(f"the files of a registered model are gone: {path}", next_command="streamrec models verify")
    return path


@contextmanager
def _temporary(home: Path) -> Iterator[Path]:
    import tempfile

    with tempfile.TemporaryDirectory(dir=home) as folder:
        yield Path(folder)
