"""The evidence that a training itself can give: export, parity, drift baseline. Figures stand in baseline_checks.py.

The lineage check is the registry's (registry/evidence.py).
"""

from collections.abc import Mapping, Sequence

from bentos.recommender.rankers.formats import named
from contracts.checklist import TRAIN
from contracts.evidence import Check, Verdict
from contracts.serving import Ranker
from features.online.memory import MemoryStore
from features.parity import parity as online_against_offline
from registry.artifacts import Bundle, Kind
from training.assess import Evaluation
from training.baseline_checks import baselines, metrics, union
from training.data.snapshot import Snapshot
from training.reference import Written

EXPORT_TOLERANCE = 1e-4
PARITY_MOMENTS = 100
FITTED_BY: Mapping[Ranker, str] = {
    "linear": "scikit-learn",
    "trees": "LightGBM",
    "dcn": "PyTorch",
    "ensemble": "LightGBM, PyTorch",
}


def all_checks(
    kept: Snapshot,
    bundles: Mapping[Kind, Bundle],
    judged: Evaluation | None,
    difference: float,
    reference: Written,
    rigour: Sequence[Check] = (),
) -> dict[Kind, list[Check]]:
    """By model: what each version carries. rigour: leakage, slices, fairness, calibration, cold start; the ranking's,
    as it is the funnel with its ranker that they are of; leakage is everybody's."""
    shared = [parity(kept), *(check for check in rigour if check.name.startswith("leakage"))]
    own = [check for check in rigour if not check.name.startswith("leakage")]
    ranker = named(bundles["ranking"].manifest)
    figures = bundles["retrieval"].manifest.params.get("figures", {})
    towers = figures.get("onnx_max_difference")
    return {
        "retrieval": [*shared, export_equality("two_tower.onnx", towers), union(judged)],
        "ranking": [
            *shared,
            export_equality(ranker.file, difference, FITTED_BY[ranker.ranker]),
            metrics(judged),
            baselines(judged),
            drift_baseline(reference),
            *own,
        ],
        "fallback": [*shared],
    }


def drift_baseline(reference: Written) -> Check:
    """Something to measure drift and skew against: what the ranker read of slates, as they would be shown."""
    if reference.slate_rows:
        verdict: Verdict = "pass"
        detail = f"{reference.rows} rows, {reference.slate_rows} of them of slates"
    else:
        verdict = "inconclusive"
        detail = f"{reference.rows} rows, none of slates: without a test window nothing was shown"
    return Check(
        name="drift_baseline",
        verdict=verdict,
        detail=f"{detail}; SHA-256 {reference.digest[:12]}",
        figures={"rows": float(reference.rows), "slate_rows": float(reference.slate_rows)},
        command=TRAIN,
    )


def export_equality(name: str, difference: float | None, fitted_by: str = "PyTorch") -> Check:
    if difference is None:
        return Check(name="export", verdict="inconclusive", detail=f"{name} was not compared", command=TRAIN)
    return Check(
        name="export",
        verdict="pass" if difference <= EXPORT_TOLERANCE else "fail",
        detail=f"{name} differs from {fitted_by} by at most {difference:.1e} (allowed {EXPORT_TOLERANCE:g})",
        figures={"max_difference": float(difference)},
        command=TRAIN,
    )


def parity(kept: Snapshot) -> Check:
    """The log replayed through the online store gives what the offline join gives, value by value."""
    result = online_against_offline(kept.folder, MemoryStore(), moments=PARITY_MOMENTS)
    compared = sum(result.values.values())
    wrong = sorted({mismatch.feature for mismatch in result.mismatches})
    verdict: Verdict = "fail" if wrong else "pass" if compared else "inconclusive"
    return Check(
        name="parity",
        verdict=verdict,
        detail=f"{len(result.mismatches)} of {compared} values differ" + (f": {', '.join(wrong)}" if wrong else ""),
        figures={"compared": float(compared), "different": float(len(result.mismatches))},
        command=TRAIN,
    )
