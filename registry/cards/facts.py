"""What a card is made of: a version's tags and evidence, and what its training left in MLflow."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from contracts.errors import NotFound
from contracts.evidence import Check, Evidence
from contracts.settings import Settings
from registry.artifacts import KINDS, Kind
from registry.lineage import SNAPSHOTS
from registry.models import Registry, RunFacts
from registry.registration import FRAMING_TAG
from registry.versions import ModelVersion


@dataclass(frozen=True, slots=True)
class Facts:
    """beside: the versions of the same run. run: None where MLflow has it no longer. The rest is empty where the run
    did not leave it; ladder, slices: one mapping a row. since_us: of the first row; None where no rows are kept."""

    version: ModelVersion
    beside: Mapping[Kind, ModelVersion]
    evidence: Evidence | None
    run: RunFacts | None
    ladder: Sequence[Mapping[str, Any]]
    slices: Sequence[Mapping[str, Any]]
    study: Mapping[str, Any]
    calibration: Mapping[str, Any]
    warnings: Sequence[str]
    since_us: int | None

    @property
    def figures(self) -> dict[str, float]:
        return dict(json.loads(self.version.tags.get("evaluation") or "{}"))

    @property
    def baselines(self) -> dict[str, dict[str, float]]:
        return dict(json.loads(self.version.tags.get("baselines") or "{}"))

    @property
    def framing(self) -> dict[str, Any]:
        return dict(json.loads(self.version.tags.get(FRAMING_TAG) or "{}"))

    @property
    def checks(self) -> tuple[Check, ...]:
        return self.evidence.checks if self.evidence else ()

    def check(self, name: str) -> Check | None:
        return next((check for check in self.checks if check.name == name), None)


def read(version: ModelVersion, registry: Registry, settings: Settings) -> Facts:
    """
    Raises:
        ArtifactError: the evidence, or a document of the run, cannot be read. Unreachable: MLflow is away.
    """
    beside = {kind: next((v for v in registry.versions(kind) if v.run_id == version.run_id), None) for kind in KINDS}
    left: dict[str, Any] = {}
    try:
        run = registry.run_facts(version.run_id)
    except NotFound:
        run = None
    if run is not None:
        for name in ("tables/ladder", "slice_limits", "study", "calibration", "warnings"):
            left[name] = registry.run_document(version.run_id, f"{name}.json") or {}
    columns = left.get("tables/ladder", {})
    return Facts(
        version,
        {kind: one for kind, one in beside.items() if one is not None},
        registry.evidence(version),
        run,
        [dict(zip(columns["columns"], row, strict=True)) for row in columns.get("data", ())],
        left.get("slice_limits", {}).get("slices", ()),
        left.get("study", {}),
        left.get("calibration", {}),
        left.get("warnings", {}).get("warnings", ()),
        _since_us(settings, version.tags.get("data_digest", "")),
    )


def moment(us: int | str | None) -> str:
    if us in (None, ""):
        return ""
    return datetime.fromtimestamp(int(us or 0) / 1e6, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _since_us(settings: Settings, digest: str) -> int | None:
    """The first moment of the rows that were kept, from the statistics of their files."""
    import pyarrow.parquet as pq

    found: list[int] = []
    for path in sorted((settings.home / SNAPSHOTS / (digest or "-") / "interactions.parquet").glob("*.parquet"))[:1]:
        rows = pq.read_table(path, columns=["timestamp"])["timestamp"]
        found += rows.slice(0, 1).cast("int64").to_pylist()  # sorted by time
    return found[0] if found else None
