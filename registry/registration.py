"""Three bundles become three model versions: files and evidence first, versions after them, aliases last."""

import json
import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.checklist import TRAIN
from contracts.errors import ArtifactError, Refused
from contracts.evidence import Check, Evidence
from registry import evidence as evidence_document
from registry.artifacts import KINDS, MANIFEST, Bundle, Kind, fit_problems, model_name, open_bundle, sha256_file, verify
from registry.environment import CodeState, sha256_text
from registry.metric_names import metric_name
from registry.mlflow_client import translated
from registry.reference import DIGEST_TAG
from registry.signatures import BUNDLE_FOLDER, write_mlmodel
from registry.versions import CHALLENGER, CHAMPION, ModelVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient

FRAMING_TAG = "framing"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where models come from, besides code and environment, which the run knows by itself.

    data_digest: SHA-256 of the snapshot, 64 hex digits. until_us: the cut that was asked for. metrics: of the funnel.
    baselines: name → metrics. beaten: names of the baselines that the funnel beat. reference_digest: of what drift and
    skew are measured against; empty where a run kept none. framing: by model, what it predicts and at what cost.
    """

    data_name: str
    data_digest: str
    data_source: str
    seeds: Mapping[str, int]
    until_us: int | None
    metrics: Mapping[str, float]
    baselines: Mapping[str, Mapping[str, float]]
    beaten: tuple[str, ...] = ()
    reference_digest: str = ""
    framing: Mapping[Kind, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Registration:
    """What a run knows when it registers. stored: ids of the models it has begun to store, for whoever cleans up."""

    client: "MlflowClient"
    experiment_id: str
    run_id: str
    code: CodeState
    lock: str
    stored: list[str] = field(default_factory=list)

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
                self.run_id,
                [whole, *by_kind.get(kind, ())],
                {"manifest_sha256": digests[kind], "data_digest": lineage.data_digest, "git_commit": self.code.commit},
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
        with translated(f"storing the {kind} model of run {self.run_id}"), tempfile.TemporaryDirectory() as stage:
            logged = self.client.create_logged_model(
                self.experiment_id,
                name=model_name(kind),
                source_run_id=self.run_id,
                model_type=kind,
                params={"feature_hash": bundle.manifest.feature_hash, "n_items": str(bundle.manifest.n_items)},
            )
            self.stored.append(logged.model_id)
            write_mlmodel(bundle, self.run_id, logged.model_id, manifest_digest, Path(stage) / "MLmodel")
            (Path(stage) / evidence_document.EVIDENCE).write_text(document.model_dump_json(indent=2))
            self.client.log_model_artifacts(logged.model_id, str(bundle.folder), BUNDLE_FOLDER)
            self.client.log_model_artifacts(logged.model_id, stage)
            for name, value in lineage.metrics.items():
                self.client.log_metric(
                    self.run_id,
                    metric_name(name),
                    value,
                    model_id=logged.model_id,
                    dataset_name=lineage.data_name,
                    dataset_digest=lineage.data_digest[:36],
                )
            self.client.finalize_logged_model(logged.model_id, "READY")
            return logged.model_id, str(logged.artifact_location)

    def _create_version(self, kind: Kind, source: str, model_id: str, tags: Mapping[str, str]) -> ModelVersion:
        from mlflow.exceptions import MlflowException

        name = model_name(kind)
        with translated(f"registering {name}"):
            try:
                self.client.create_registered_model(name, description=_DESCRIPTIONS[kind])
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            made = self.client.create_model_version(
                name,
                source,
                self.run_id,
                tags={**tags, "model_id": model_id},
                description=_description(tags),
                model_id=model_id,
            )
        return ModelVersion(
            kind,
            int(made.version),
            self.run_id,
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
            self.client.set_registered_model_alias(version.name, CHALLENGER, str(version.number))
            try:
                self.client.get_model_version_by_alias(version.name, CHAMPION)
            except MlflowException:
                self.client.set_registered_model_alias(version.name, CHAMPION, str(version.number))

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
            **{name: str(manifest.params[name]) for name in ("ranker", "format") if name in manifest.params},
            "trained_until_us": str(manifest.trained_until_us),
            "until_us": "" if lineage.until_us is None else str(lineage.until_us),
            "data_name": lineage.data_name,
            "data_digest": lineage.data_digest,
            "data_source": lineage.data_source,
            "seeds": json.dumps(dict(lineage.seeds)),
            "evaluation": json.dumps(_finite(lineage.metrics)),
            "baselines": json.dumps({name: _finite(m) for name, m in lineage.baselines.items()}),
            "baselines_beaten": ", ".join(lineage.beaten),
            **({DIGEST_TAG: lineage.reference_digest} if lineage.reference_digest else {}),
            **({FRAMING_TAG: json.dumps(lineage.framing[manifest.kind])} if manifest.kind in lineage.framing else {}),
            **code_tags(self.code, self.lock),
        }

    def _lineage_check(self, lineage: Lineage) -> Check:
        missing = [
            name
            for name, there in {
                "the data snapshot's SHA-256": re.fullmatch(r"[0-9a-f]{64}", lineage.data_digest) is not None,
                "seeds": bool(lineage.seeds),
                "an evaluation": bool(lineage.metrics),
                "baselines": any(lineage.baselines.values()),
            }.items()
            if not there
        ]
        if missing:
            return Check(
                name="lineage",
                verdict="inconclusive",
                detail="not recorded: " + ", ".join(missing),
                command=TRAIN,
            )
        code = f"commit {self.code.commit[:12]}"
        if self.code.dirty:
            code += " with changes; the very sources are kept as code/sources.tar.gz"
        return Check(
            name="lineage",
            verdict="pass",
            detail=f"{code}, data {lineage.data_digest[:12]}, seeds {dict(lineage.seeds)}, environment "
            f"{sha256_text(self.lock)[:12]}",
            command=TRAIN,
        )


def code_tags(code: CodeState, lock: str) -> dict[str, str]:
    return {
        "git_commit": code.commit,
        "git_dirty": str(code.dirty).lower(),
        "code_digest": code.digest,
        "environment_digest": sha256_text(lock),
    }


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


def _description(tags: Mapping[str, str]) -> str:
    """One line that the UI shows beside a version."""
    until = EPOCH + timedelta(microseconds=int(tags["trained_until_us"]))
    figures = ", ".join(f"{name} {value:.4f}" for name, value in json.loads(tags["evaluation"]).items())
    beaten = f"; beats {tags['baselines_beaten']}" if tags["baselines_beaten"] else ""
    return f"{tags['data_name']} until {until:%Y-%m-%d %H:%M} UTC: {figures or 'not evaluated'}{beaten}"


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(v) for name, v in metrics.items() if v is not None and math.isfinite(v)}


_DESCRIPTIONS: dict[Kind, str] = {
    "retrieval": "Two-tower, graph, content, trending and item-item sources with the catalogue they share.",
    "ranking": "The ranker over the candidates of the sources, calibrated: linear, boosted trees or DCN-V2.",
    "fallback": "What answers when the ranker cannot: logistic ranker, popularity, static slate.",
}
