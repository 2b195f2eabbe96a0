"""The part of the evidence that needs no data: measured on the files, looked up in the registry. At any time again."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from contracts.budgets import Budgets
from contracts.evidence import Check
from contracts.framing import Framing
from contracts.quality import QualityPolicy
from registry.artifacts import KINDS, Bundle, Kind
from registry.models import Registry
from registry.registration import FRAMING_TAG
from registry.safeguards import safeguard_checks
from registry.verification import artifacts_check
from registry.versions import ModelVersion
from training.latency import latency_checks


def release_checks(
    registry: Registry,
    bundles: Mapping[Kind, Bundle],
    quality: QualityPolicy,
    frames: Mapping[Kind, Mapping[str, Any]],
    versions: Mapping[Kind, ModelVersion] | None = None,
    serving: Budgets | None = None,
) -> dict[Kind, list[Check]]:
    """`artifacts`, `latency`, `rollback` and `escalation` of bundles that serve together.

    frames: what was declared of each, as in the run's framing.json; the default budget where nothing was. versions:
    theirs, once registered. serving: the budgets of the settings that they serve under; the default ones without.
    """
    usual = Framing().budgets_ms
    budgets = {kind: float(frames.get(kind, {}).get("budget_ms", usual[kind])) for kind in KINDS}
    whole = artifacts_check(bundles)
    measured = latency_checks(bundles, budgets, serving or Budgets())
    stand_ready = safeguard_checks(registry, bundles["fallback"], quality.escalation, versions)
    return {kind: [whole, measured[kind], *stand_ready[kind]] for kind in KINDS}


def with_release_checks(
    found: Mapping[Kind, Sequence[Check]],
    registry: Registry,
    bundles: Mapping[Kind, Bundle],
    quality: QualityPolicy,
    frames: Mapping[Kind, Mapping[str, Any]],
    serving: Budgets | None = None,
) -> dict[Kind, list[Check]]:
    """`found` and these."""
    more = release_checks(registry, bundles, quality, frames, serving=serving)
    return {kind: [*found.get(kind, ()), *more[kind]] for kind in KINDS}


def declared(versions: Mapping[Kind, ModelVersion]) -> dict[Kind, dict[str, Any]]:
    """The framing of registered versions; empty where a version was registered without."""
    return {kind: json.loads(version.tags.get(FRAMING_TAG) or "{}") for kind, version in versions.items()}
