"""The evidence that a training itself can give: export, parity, drift baseline. Figures stand in baseline_checks.py.

The lineage check is the registry's (registry/evidence.py).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from bentos.recommender.rankers.formats import named
from contracts.checklist import TRAIN
from contracts.evidence import Check, Verdict
from contracts.serving import Ranker
from features.online.memory import MemoryStore
from features.parity import parity as online_against_offline
from registry.artifacts import FAST_RANKER, Bundle, Kind, Manifest
from registry.evidence import WORST_FIRST
from training.assess import Evaluation
from training.baseline_checks import baselines, metrics, union
from training.data.snapshot import Snapshot
from training.models.dcn_fast import FLOAT32_TOLERANCE, MAX_NDCG_LOSS, MIN_OVERLAP, TOP, Agreement
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
    figures = bundles["retrieval"].manifest.params.get("figures", {})
    towers = figures.get("onnx_max_difference")
    return {
        "retrieval": [*shared, export_equality("two_tower.onnx", towers), union(judged)],
        "ranking": [
            *shared,
            ranker_export(bundles["ranking"].manifest, difference),
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


def export_equality(
    name: str, difference: float | None, fitted_by: str = "PyTorch", serves: str = "it serves on every device"
) -> Check:
    if difference is None:
        return Check(name="export", verdict="inconclusive", detail=f"{name} was not compared", command=TRAIN)
    return Check(
        name="export",
        verdict="pass" if difference <= EXPORT_TOLERANCE else "fail",
        detail=f"{name} differs from {fitted_by} by at most {difference:.1e} (allowed {EXPORT_TOLERANCE:g}); {serves}",
        figures={"max_difference": float(difference)},
        command=TRAIN,
    )


def ranker_export(manifest: Manifest, difference: float) -> Check:
    """Of the ranker's file against what was fitted; and of the graph that serves in its place on a CPU, where there is
    one, against that file. Its figures are in the manifest, measured when it was chosen."""
    ranker = named(manifest)
    fitted_by = FITTED_BY[ranker.ranker]
    if ranker.ranker != "dcn" or FAST_RANKER not in manifest.files:  # as bentos/recommender/assemble.py chooses
        return export_equality(ranker.file, difference, fitted_by)
    verdict, said, figures = _fast(manifest.params.get("fast"), ranker.file)
    serves = f"on a CPU {FAST_RANKER} serves, {said}; elsewhere {ranker.file}"
    check = export_equality(ranker.file, difference, fitted_by, serves)
    worst: Verdict = min(check.verdict, verdict, key=WORST_FIRST.index)
    return check.model_copy(update={"verdict": worst, "figures": check.figures | figures})


def _fast(params: Any, plain: str) -> tuple[Verdict, str, dict[str, float]]:
    """params: `Choice.params` of training/models/dcn_fast.py as a manifest has them, or what stands there instead.

    In float32 it is the same function folded, and held to its scores; in int8 it is another, and held to its ranking.
    """
    try:
        arithmetic = str(params["arithmetic"])
        found = Agreement(**params[arithmetic])
    except (TypeError, KeyError):
        return "inconclusive", f"without figures of how far it is from {plain}", {}
    said = f"in {arithmetic}: it differs from {plain} by at most {found.max_difference:.1e}"
    figures = {"fast_max_difference": found.max_difference, "fast_users": float(found.users)}
    if found.users:
        said += f", has {found.overlap:.2%} of its first {TOP}, loses {found.ndcg_loss:.1e} of NDCG@{TOP}"
        figures |= {"fast_overlap": found.overlap, "fast_ndcg_loss": found.ndcg_loss}
    if arithmetic == "float32":
        verdict: Verdict = "pass" if found.max_difference <= FLOAT32_TOLERANCE else "fail"
        return verdict, f"{said} (difference allowed {FLOAT32_TOLERANCE:g})", figures
    verdict = "inconclusive" if not found.users else "pass" if found.holds else "fail"
    said += f" over {found.users} users (at least {MIN_OVERLAP:.0%}, at most {MAX_NDCG_LOSS:g})"
    return verdict, said, figures


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
