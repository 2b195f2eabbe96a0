"""Evidence for bundles that no training made: what can be measured is, the rest says that it was made for a test."""

from collections.abc import Mapping
from pathlib import Path

from contracts.checklist import wanted
from contracts.evidence import Check
from contracts.quality import Escalation, QualityPolicy
from registry.artifacts import KINDS, Kind, model_name, open_bundle
from registry.models import Registry
from training.release_checks import release_checks

BY_REGISTRATION = "lineage"
CALLED = QualityPolicy(escalation=Escalation(contact="whoever runs these tests"))


def made_checks(kind: Kind) -> list[Check]:
    """Everything that the checklist wants of a model of this kind, but for what registration adds by itself."""
    return [
        Check(name=name, verdict="pass", detail="made for a test, of a bundle that was not trained")
        for name in wanted(model_name(kind))
        if name != BY_REGISTRATION
    ]


def measured_checks(registry: Registry, bundles: Mapping[Kind, Path]) -> dict[Kind, list[Check]]:
    """The same, with artifacts, latency, rollback and escalation as they are: for bundles that can be loaded."""
    opened = {kind: open_bundle(path, kind) for kind, path in bundles.items()}
    real = release_checks(registry, opened, CALLED, {})
    names = {check.name for checks in real.values() for check in checks}
    return {kind: [*(c for c in made_checks(kind) if c.name not in names), *real[kind]] for kind in KINDS}
