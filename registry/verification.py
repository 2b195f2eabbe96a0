"""Are registered models still what they were when they were registered, and do those that belong together fit?"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from contracts.checklist import CHECK
from contracts.errors import ArtifactError
from contracts.evidence import Check
from registry.artifacts import KINDS, MANIFEST, Bundle, Kind, fit_problems, open_bundle, sha256_file, verify
from registry.bento_store import StoredBento
from registry.models import Registry
from registry.versions import ModelVersion


@dataclass(frozen=True, slots=True)
class Finding:
    """`name`: a version, a run or a stored model. No problems: all is well."""

    name: str
    problems: tuple[str, ...]


def verify_versions(registry: Registry, versions: Iterable[ModelVersion]) -> list[Finding]:
    """Each version's files and evidence; and for each run among them with all three models, their fit."""
    findings = []
    by_run: dict[str, dict[Kind, Bundle]] = {}
    for version in versions:
        problems, bundle = _version_problems(registry, version)
        findings.append(Finding(version.uri, tuple(problems)))
        if bundle is not None:
            by_run.setdefault(version.run_id, {})[version.kind] = bundle
    for run_id, bundles in by_run.items():
        if set(bundles) == set(KINDS):
            findings.append(Finding(f"fit of run {run_id}", tuple(fit_problems([bundles[k] for k in KINDS]))))
    return findings


def verify_bento(bento: StoredBento) -> list[Finding]:
    """The stored models that a Bento is pinned to, by their own checksums, and their fit."""
    findings = []
    bundles: dict[Kind, Bundle] = {}
    for kind in KINDS:
        if kind not in bento.models:
            findings.append(Finding(f"{bento.tag} {kind}", (f"pins no {kind} model",)))
            continue
        tag, folder = bento.models[kind]
        try:
            bundles[kind] = open_bundle(folder, kind)
            findings.append(Finding(tag, tuple(verify(bundles[kind]))))
        except ArtifactError as error:
            findings.append(Finding(tag, (error.message,)))
    if set(bundles) == set(KINDS):
        findings.append(Finding(f"fit of {bento.tag}", tuple(fit_problems([bundles[k] for k in KINDS]))))
    return findings


def artifacts_check(bundles: Mapping[Kind, Bundle]) -> Check:
    """Checksums hold, and the three fit one another."""
    problems = [problem for bundle in bundles.values() for problem in verify(bundle)]
    problems += fit_problems(list(bundles.values()))
    return Check(
        name="artifacts",
        verdict="fail" if problems else "pass",
        detail="; ".join(problems) or "checksums hold; feature definitions, catalogue and row signature agree",
        command=CHECK,
    )


def _version_problems(registry: Registry, version: ModelVersion) -> tuple[list[str], Bundle | None]:
    try:
        bundle = registry.bundle(version)
    except ArtifactError as error:
        return [error.message], None
    problems = verify(bundle)
    if version.tags.get("manifest_sha256") != sha256_file(bundle.folder / MANIFEST):
        problems.append(f"{MANIFEST} is not the one that was registered")
    try:
        evidence = registry.evidence(version)
        if evidence is None:
            problems.append("carries no evidence")
        elif evidence.run_id != version.run_id:
            problems.append(f"its evidence is of run {evidence.run_id}, not of {version.run_id}")
    except ArtifactError as error:
        problems.append(error.message)
    return problems, bundle
