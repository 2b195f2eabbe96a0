"""One MLflow run: what a training writes, and the registration of its three bundles at the end."""

import json
import math
import os
import re
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import ArtifactError, Refused
from contracts.evidence import Check, Evidence
from registry import evidence as evidence_document
from registry.artifacts import KINDS, MANIFEST, Bundle, Kind, fit_problems, model_name, open_bundle, sha256_file, verify
from registry.environment import CodeState, archive_sources, code_state, environment_lock, sha256_text
from registry.mlflow_client import EXPERIMENT, translated
from registry.signatures import BUNDLE_FOLDER, write_mlmodel
from registry.versions import CHALLENGER, CHAMPION, ModelVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient

HOST, PID, STARTED = "streamrec.host", "streamrec.pid", "streamrec.process_started"


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where models come from, besides code and environment, which the run knows by itself.

    data_digest: SHA-256 of the snapshot, 64 hex digits. until_us: the cut that was asked for. metrics: of the funnel.
    baselines: name → metrics. beaten: names of the baselines that the funnel beat.
    """

    data_name: str
    data_digest: str
    data_source: str
    seeds: Mapping[str, int]
    until_us: int | None
    metrics: Mapping[str, float]
    baselines: Mapping[str, Mapping[str, float]]
    beaten: tuple[str, ...] = ()


class Run:
    """Open while its `with` block runs: FINISHED at its end, FAILED on any exception."""

    def __init__(self, client: "MlflowClient", run_id: str, experiment_id: str, code: CodeState, lock: str) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._code = code
        self._lock = lock
        self._models: list[str] = []  # logged models, so that a failure marks them too
        self.id = run_id

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Nested mappings become dotted names; a value is cut at 6,000 characters."""
        from mlflow.entities import Param

        flat = [Param(_legal(name), str(value)[:6000]) for name, value in _flatten(params)]
        self._batch(params=flat)

    def log_metrics(self, metrics: Mapping[str, float | None], step: int | None = None) -> None:
        """`@` becomes `_at_` (MLflow allows no `@`); None and what is not finite are left out."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        rows = [
            Metric(metric_name(name), float(value), now_ms, step or 0)
            for name, value in metrics.items()
            if value is not None and math.isfinite(value)
        ]
        self._batch(metrics=rows)

    def log_tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self._batch(tags=[RunTag(key, str(value)[:8000]) for key, value in tags.items()])

    def log_dataset(
        self,
        *,
        folder: Path,
        name: str,
        digest: str,
        rows: int | None = None,
        source: str = "",
        context: str = "training",
    ) -> None:
        """Name the snapshot as an input of this run. MLflow's digest holds 36 characters; the tag `sha256` has all."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=name,
            digest=digest[:36],
            source_type="streamrec_snapshot",
            source=json.dumps({"uri": str(folder), "imported_from": source, "sha256": digest}),
            schema=_parquet_schema(folder / "interactions.parquet"),
            profile=json.dumps({"num_rows": rows}) if rows is not None else None,
        )
        tags = [InputTag("mlflow.data.context", context), InputTag("sha256", digest)]
        with translated(f"run {self.id}"):
            self._client.log_inputs(self.id, [DatasetInput(dataset, tags)])

    def log_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """`tables/{name}.json`, which the UI shows as a table."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        with translated(f"run {self.id}"):
            self._client.log_table(self.id, {c: [row.get(c) for row in rows] for c in columns}, f"tables/{name}.json")

    def log_text(self, name: str, text: str) -> None:
        with translated(f"run {self.id}"):
            self._client.log_text(self.id, text, name)

    def log_json(self, name: str, document: Any) -> None:
        self.log_text(name, json.dumps(document, indent=2, default=str))

    def log_file(self, path: Path, folder: str = "") -> None:
        with translated(f"run {self.id}"):
            self._client.log_artifact(self.id, str(path), folder or None)

    def register(
        self,
        bundles: Mapping[Kind, Path],
        checks: Sequence[Check] | Mapping[Kind, Sequence[Check]],
        lineage: Lineage,
    ) -> dict[Kind, ModelVersion]:
        """One version of each of the three models. Files and evidence are stored first, versions made after them,
        aliases moved last: what a kill leaves behind is at most a version whose evidence is whole.

        Raises:
            ArtifactError: a bundle is missing or damaged.
            Refused: the three do not fit one another.
        """
        opened = _checked(bundles)
        digests = {kind: sha256_file(bundle.folder / MANIFEST) for kind, bundle in opened.items()}
        by_kind = checks if isinstance(checks, Mapping) else dict.fromkeys(KINDS, checks)
        whole = self._lineage_check(lineage)
        documents = {
            kind: evidence_document.document(
                model_name(kind),
                self.id,
                [whole, *by_kind.get(kind, ())],
                {"manifest_sha256": digests[kind], "data_digest": lineage.data_digest, "git_commit": self._code.commit},
            )
            for kind in KINDS
        }
        sources = {kind: self._store(opened[kind], documents[kind], digests[kind], lineage) for kind in KINDS}
        versions = {}
        for kind in KINDS:
            model_id, source = sources[kind]
            tags = self._version_tags(opened[kind], documents[kind], digests[kind], lineage)
            versions[kind] = self._create_version(kind, source, model_id, tags)
        for version in versions.values():
            self._move_aliases(version)
        return versions

    def _store(self, bundle: Bundle, document: Evidence, manifest_digest: str, lineage: Lineage) -> tuple[str, str]:
        """Upload one model; returns (model id, where it lies)."""
        kind = bundle.manifest.kind
        with translated(f"storing the {kind} model of run {self.id}"), tempfile.TemporaryDirectory() as stage:
            logged = self._client.create_logged_model(
                self._experiment_id,
                name=model_name(kind),
                source_run_id=self.id,
                model_type=kind,
                params={"feature_hash": bundle.manifest.feature_hash, "n_items": str(bundle.manifest.n_items)},
            )
            self._models.append(logged.model_id)
            write_mlmodel(bundle, self.id, logged.model_id, manifest_digest, Path(stage) / "MLmodel")
            (Path(stage) / evidence_document.EVIDENCE).write_text(document.model_dump_json(indent=2))
            self._client.log_model_artifacts(logged.model_id, str(bundle.folder), BUNDLE_FOLDER)
            self._client.log_model_artifacts(logged.model_id, stage)
            for name, value in lineage.metrics.items():
                self._client.log_metric(
                    self.id,
                    metric_name(name),
                    value,
                    model_id=logged.model_id,
                    dataset_name=lineage.data_name,
                    dataset_digest=lineage.data_digest[:36],
                )
            self._client.finalize_logged_model(logged.model_id, "READY")
            return logged.model_id, str(logged.artifact_location)

    def _create_version(self, kind: Kind, source: str, model_id: str, tags: Mapping[str, str]) -> ModelVersion:
        from mlflow.exceptions import MlflowException

        name = model_name(kind)
        with translated(f"registering {name}"):
            try:
                self._client.create_registered_model(name, description=_DESCRIPTIONS[kind])
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            made = self._client.create_model_version(
                name, source, self.id, tags={**tags, "model_id": model_id}, model_id=model_id
            )
        return ModelVersion(
            kind,
            int(made.version),
            self.id,
            source,
            model_id,
            made.creation_timestamp * 1000,
            dict(tags),
            (CHALLENGER,),
        )

    def _move_aliases(self, version: ModelVersion) -> None:
        """The newest version is the challenger. The first ever is the champion too, so that the name means something
        from the first day; from then on only a release moves `champion`."""
        from mlflow.exceptions import MlflowException

        with translated(f"aliases of {version.name}"):
            self._client.set_registered_model_alias(version.name, CHALLENGER, str(version.number))
            try:
                self._client.get_model_version_by_alias(version.name, CHAMPION)
            except MlflowException:
                self._client.set_registered_model_alias(version.name, CHAMPION, str(version.number))

    def _version_tags(
        self, bundle: Bundle, document: Evidence, manifest_digest: str, lineage: Lineage
    ) -> dict[str, str]:
        manifest = bundle.manifest
        return {
            "kind": manifest.kind,
            "readiness": document.readiness,
            "manifest_sha256": manifest_digest,
            "feature_hash": manifest.feature_hash,
            "catalogue_hash": manifest.catalogue_hash,
            "row_signature": manifest.signature,
            "trained_until_us": str(manifest.trained_until_us),
            "until_us": "" if lineage.until_us is None else str(lineage.until_us),
            "data_name": lineage.data_name,
            "data_digest": lineage.data_digest,
            "data_source": lineage.data_source,
            "seeds": json.dumps(dict(lineage.seeds)),
            "evaluation": json.dumps(_finite(lineage.metrics)),
            "baselines": json.dumps({name: _finite(m) for name, m in lineage.baselines.items()}),
            "baselines_beaten": ", ".join(lineage.beaten),
            **_code_tags(self._code, self._lock),
        }

    def _lineage_check(self, lineage: Lineage) -> Check:
        missing = [
            name
            for name, there in {
                "the data snapshot's SHA-256": re.fullmatch(r"[0-9a-f]{64}", lineage.data_digest) is not None,
                "seeds": bool(lineage.seeds),
                "an evaluation": bool(lineage.metrics),
                "baselines": bool(lineage.baselines),
            }.items()
            if not there
        ]
        if missing:
            return Check(
                name="lineage",
                verdict="inconclusive",
                detail="not recorded: " + ", ".join(missing),
                command="streamrec train --data DIR",
            )
        code = f"commit {self._code.commit[:12]}"
        if self._code.dirty:
            code += " with changes; the very sources are kept as code/sources.tar.gz"
        return Check(
            name="lineage",
            verdict="pass",
            detail=f"{code}, data {lineage.data_digest[:12]}, seeds {dict(lineage.seeds)}, environment "
            f"{sha256_text(self._lock)[:12]}",
        )

    def _batch(self, **rows: Any) -> None:
        with translated(f"run {self.id}"):
            for kind, entries in rows.items():
                for start in range(0, len(entries), 100):  # MLflow's limit for parameters
                    self._client.log_batch(self.id, **{kind: entries[start : start + 100]})


@contextmanager
def open_run(
    client: "MlflowClient",
    name: str,
    *,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    location: str | None,
    root: Path | None = None,
) -> Iterator[Run]:
    with translated("MLflow"):
        experiment_id = _experiment(client, location)
        _fail_abandoned(client, experiment_id)
        code, lock = code_state(root), environment_lock()
        owner = {HOST: socket.gethostname(), PID: str(os.getpid()), STARTED: _process_started(os.getpid())}
        made = client.create_run(
            experiment_id,
            run_name=name,
            tags={**_code_tags(code, lock), "mlflow.source.git.commit": code.commit, **owner, **tags},
        )
    run = Run(client, made.info.run_id, experiment_id, code, lock)
    try:
        run.log_params(params)
        run.log_text("environment/installed.txt", lock)
        if code.dirty:
            with tempfile.TemporaryDirectory() as folder:
                run.log_file(archive_sources(Path(folder) / "sources.tar.gz", root), "code")
        yield run
    except BaseException:
        with suppress(Exception):  # the first error is the one to see
            _fail(client, run.id, run._models)
        raise
    with translated(f"run {run.id}"):
        client.set_terminated(run.id, "FINISHED")


def metric_name(name: str) -> str:
    return _legal(name.replace("@", "_at_"))


def metric_label(name: str) -> str:
    """The inverse of `metric_name`, for the names that this project uses."""
    return name.replace("_at_", "@")


def _experiment(client: "MlflowClient", location: str | None) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        try:
            return str(client.create_experiment(EXPERIMENT, artifact_location=location))
        except MlflowException:  # made by another process between the two calls
            found = client.get_experiment_by_name(EXPERIMENT)
            if found is None:
                raise
    return str(found.experiment_id)


def _fail_abandoned(client: "MlflowClient", experiment_id: str) -> None:
    """Runs of this machine whose process is gone were killed: say so."""
    mine = f"attributes.status = 'RUNNING' and tags.`{HOST}` = '{socket.gethostname()}'"
    for run in client.search_runs([experiment_id], mine, max_results=100):
        pid = int(run.data.tags.get(PID, "0"))
        if _process_started(pid) != run.data.tags.get(STARTED):
            models = client.search_logged_models([experiment_id], f"source_run_id = '{run.info.run_id}'")
            _fail(client, run.info.run_id, [m.model_id for m in models if str(m.status) == "PENDING"])


def _fail(client: "MlflowClient", run_id: str, models: Iterable[str]) -> None:
    for model_id in models:
        with suppress(Exception):
            if str(client.get_logged_model(model_id).status) == "PENDING":
                client.finalize_logged_model(model_id, "FAILED")
    client.set_terminated(run_id, "FAILED")


def _process_started(pid: int) -> str:
    """When a process began: a pid alone may have been given to another. Empty when there is none."""
    import psutil

    try:
        return f"{psutil.Process(pid).create_time():.2f}" if pid > 0 else ""
    except psutil.Error:
        return ""


def _checked(bundles: Mapping[Kind, Path]) -> dict[Kind, Bundle]:
    missing = [kind for kind in KINDS if kind not in bundles]
    if missing:
        raise ArtifactError(f"a run registers all three models; missing: {', '.join(missing)}")
    opened: dict[Kind, Bundle] = {kind: open_bundle(bundles[kind], kind) for kind in KINDS}
    for kind, bundle in opened.items():
        if problems := verify(bundle):
            raise ArtifactError(f"the {kind} bundle {bundle.folder} is damaged: {'; '.join(problems)}")
    if problems := fit_problems([*opened.values()]):
        raise Refused(f"the three models do not fit one another: {'; '.join(problems)}")
    return opened


def _code_tags(code: CodeState, lock: str) -> dict[str, str]:
    return {
        "git_commit": code.commit,
        "git_dirty": str(code.dirty).lower(),
        "code_digest": code.digest,
        "environment_digest": sha256_text(lock),
    }


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(v) for name, v in metrics.items() if v is not None and math.isfinite(v)}


def _legal(name: str) -> str:
    return re.sub(r"[^/\w.\- :]", "_", name)[:250]


def _parquet_schema(path: Path) -> str | None:
    """The columns in MLflow's words, so that the UI shows them; None when there is no such file."""
    import pyarrow.dataset as ds

    if not path.exists():
        return None
    words = {"string": "string", "large_string": "string", "double": "double", "float": "float", "bool": "boolean"}
    columns = [
        {"type": words.get(str(f.type), "datetime" if "timestamp" in str(f.type) else "string"), "name": f.name}
        for f in ds.dataset(path).schema  # a file, or a snapshot's folder of monthly files
    ]
    return json.dumps({"mlflow_colspec": columns})


_DESCRIPTIONS: dict[Kind, str] = {
    "retrieval": "Two-tower, graph, content and trending sources with the catalogue they share.",
    "ranking": "DCN-V2 over the candidates of the sources, calibrated.",
    "fallback": "What answers when the ranker cannot: logistic ranker, popularity, static slate.",
}
