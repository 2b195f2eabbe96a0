"""One MLflow run: what a training writes while it works."""

import json
import math
import os
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.evidence import Check
from registry.artifacts import Kind
from registry.environment import CodeState, archive_sources, code_state, environment_lock
from registry.metric_names import legal, metric_name
from registry.mlflow_client import EXPERIMENT, translated
from registry.registration import Lineage, Registration, code_tags
from registry.versions import ModelVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient

HOST, PID, STARTED = "streamrec.host", "streamrec.pid", "streamrec.process_started"


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

        flat = [Param(legal(name), str(value)[:6000]) for name, value in _flatten(params)]
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
        """`Registration.register`: one version of each of the three models, with their evidence."""
        registration = Registration(
            self._client, self._experiment_id, self.id, self._code, self._lock, stored=self._models
        )
        return registration.register(bundles, checks, lineage)

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
        owner = {
            "mlflow.user": os.environ.get("USER") or f"uid {os.getuid()}",
            "mlflow.source.name": "streamrec",
            "mlflow.source.type": "LOCAL",
            HOST: socket.gethostname(),
            PID: str(os.getpid()),
            STARTED: _process_started(os.getpid()),
        }
        made = client.create_run(
            experiment_id,
            run_name=name,
            tags={**code_tags(code, lock), "mlflow.source.git.commit": code.commit, **owner, **tags},
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


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _parquet_schema(path: Path) -> str | None:
    """The columns in MLflow's words, so that the UI shows them; None when there is no such file or folder of parts."""
    import pyarrow.dataset as ds

    if not path.exists():
        return None
    words = {"string": "string", "large_string": "string", "double": "double", "float": "float", "bool": "boolean"}
    columns = [
        {"type": words.get(str(f.type), "datetime" if "timestamp" in str(f.type) else "string"), "name": f.name}
        for f in ds.dataset(path).schema  # a file, or a snapshot's folder of monthly files
    ]
    return json.dumps({"mlflow_colspec": columns})
