"""The evidence that a training itself can give: export, fit, leakage, metrics against the baselines.

The lineage check is the registry's (registry/evidence.py).
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from bentos.recommender.rankers.formats import named
from contracts.dataset import CONFIG, INTERACTIONS, ITEMS, USERS
from contracts.evidence import Check, Verdict
from contracts.serving import Ranker
from features.offline.items import item_features_as_of
from features.offline.states import user_states_as_of
from features.online.memory import MemoryStore
from features.parity import parity as online_against_offline
from registry.artifacts import Bundle, Kind, fit_problems, verify
from training.assess import Evaluation
from training.data import read
from training.data.snapshot import Snapshot
from training.evaluation.ladder import ERRORS, paired
from training.reference import Written

EXPORT_TOLERANCE = 1e-4
TOO_GOOD_AUC = 0.995
LEAK_USERS = 200
PARITY_MOMENTS = 100
METRIC = "ndcg@10"
# Served in an afternoon by whoever has nothing else: a funnel that is behind one of these is not released.
FITTED_BY: Mapping[Ranker, str] = {
    "linear": "scikit-learn",
    "trees": "LightGBM",
    "dcn": "PyTorch",
    "ensemble": "LightGBM, PyTorch",
}
GATE = ("popularity", "recency_popularity_14d", "ease")


def all_checks(
    kept: Snapshot,
    bundles: Mapping[Kind, Bundle],
    judged: Evaluation | None,
    cut_us: int,
    difference: float,
    reference: Written,
    rigour: Sequence[Check] = (),
) -> dict[Kind, list[Check]]:
    """By model: what each version carries. rigour: leakage, slices, fairness, calibration, cold start; the ranking's,
    as it is the funnel with its ranker that they are of; leakage is everybody's."""
    shared = [artifacts(bundles), parity(kept), leakage(kept, judged, cut_us)]
    shared += [check for check in rigour if check.name.startswith("leakage")]
    own = [check for check in rigour if not check.name.startswith("leakage")]
    against = metrics(judged)
    ranker = named(bundles["ranking"].manifest)
    figures = bundles["retrieval"].manifest.params.get("figures", {})
    towers = figures.get("onnx_max_difference")
    return {
        "retrieval": [*shared, export_equality("two_tower.onnx", towers), union(judged)],
        "ranking": [
            *shared,
            export_equality(ranker.file, difference, FITTED_BY[ranker.ranker]),
            against,
            baselines(judged),
            drift_baseline(reference),
            *own,
        ],
        "fallback": [*shared],
    }


def artifacts(bundles: Mapping[Kind, Bundle]) -> Check:
    """Checksums hold, and the three fit one another."""
    problems = [problem for bundle in bundles.values() for problem in verify(bundle)]
    problems += fit_problems(list(bundles.values()))
    return Check(
        name="artifacts",
        verdict="fail" if problems else "pass",
        detail="; ".join(problems) or "checksums hold; feature definitions, catalogue and row signature agree",
        command="streamrec models verify",
    )


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
        command="streamrec train",
    )


def export_equality(name: str, difference: float | None, fitted_by: str = "PyTorch") -> Check:
    if difference is None:
        return Check(
            name="export", verdict="inconclusive", detail=f"{name} was not compared", command="streamrec train"
        )
    return Check(
        name="export",
        verdict="pass" if difference <= EXPORT_TOLERANCE else "fail",
        detail=f"{name} differs from {fitted_by} by at most {difference:.1e} (allowed {EXPORT_TOLERANCE:g})",
        figures={"max_difference": float(difference)},
        command="streamrec train",
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
        command="streamrec features parity",
    )


def leakage(kept: Snapshot, judged: Evaluation | None, cut_us: int) -> Check:
    """Features as of the cut do not change when everything from the cut on is deleted; no figure is too good."""
    problems = future_changes_nothing(kept.folder, cut_us)
    figures = {}
    if judged is not None and np.isfinite(judged.ranker.auc.value):
        figures["ranker_auc"] = judged.ranker.auc.value
        if judged.ranker.auc.value > TOO_GOOD_AUC:
            problems.append(f"the ranker's AUC of {judged.ranker.auc.value:.4f} is too good to be true")
    return Check(
        name="leakage",
        verdict="fail" if problems else "pass",
        detail="; ".join(problems) or "features at the cut are the same with and without the rows after it",
        figures=figures,
        command="streamrec train",
    )


def future_changes_nothing(folder: Path, cut_us: int, n_users: int = LEAK_USERS) -> list[str]:
    """Names what depends on the future. Compares item features and user states with those of a truncated copy."""
    with tempfile.TemporaryDirectory(prefix="streamrec-leak-") as temporary:
        past = Path(temporary)
        latest: list[str] = []
        with pq.ParquetWriter(past / INTERACTIONS, read.schema(folder / INTERACTIONS)) as writer:
            for batch in read.batches(folder, cut_us):
                writer.write_batch(batch)
                latest = [*latest, *batch["user_id"].slice(max(0, len(batch) - 20 * n_users)).to_pylist()]
                latest = latest[-20 * n_users :]
        for name in (ITEMS, USERS, CONFIG):
            if (folder / name).exists():
                (past / name).symlink_to((folder / name).resolve())
        users = sorted(set(latest))[:n_users]
        problems = []
        whole, cut = item_features_as_of(folder, cut_us), item_features_as_of(past, cut_us)
        for name, values in whole.items():
            if not np.array_equal(values, cut[name], equal_nan=True):
                problems.append(f"{name} at the cut changes with rows after it")
        before, after = user_states_as_of(past, users, cut_us), user_states_as_of(folder, users, cut_us)
        if any(before[user].batch != after[user].batch or before[user].last != after[user].last for user in users):
            problems.append("user features at the cut change with rows after it")
        return problems


def union(judged: Evaluation | None) -> Check:
    """The union of the sources finds more than the best of them."""
    name = "union"
    if judged is None or not judged.n_users:
        return Check(name=name, verdict="inconclusive", detail="no test window", command="streamrec train --until T")
    overall = judged.funnel.overall
    single = {metric: e.value for metric, e in overall.items() if metric.startswith("recall@500:")}
    best = max(single, key=lambda metric: single[metric], default=None)
    ours = overall["recall@500"].value
    figures = {"recall@500": ours} | single
    if best is None:
        return Check(name=name, verdict="inconclusive", detail="no source was asked by itself", figures=figures)
    return Check(
        name=name,
        verdict="pass" if ours >= single[best] else "inconclusive",
        detail=f"recall@500 of the union {ours:.4f}, of the best source ({best.split(':')[1]}) {single[best]:.4f}",
        figures=figures,
    )


def metrics(judged: Evaluation | None) -> Check:
    """NDCG@10 of the funnel as served against every baseline of the same table; those of `GATE` decide.

    Differences are paired over users; one of less than two standard errors is inconclusive. The others are what a model
    has to earn its place against, and no way to serve yet: `baselines` tells of them.
    """
    name = "metrics"
    if judged is None or not judged.n_users:
        return Check(name=name, verdict="inconclusive", detail="no test window", command="streamrec train --until T")
    ours = judged.funnel.overall[METRIC]
    figures = {f"funnel_{METRIC}": ours.value}
    verdict: Verdict = "pass"
    said = []
    for scores in judged.baselines:
        if scores.not_run is not None:
            said.append(f"{scores.name}: not run ({scores.not_run})")
            continue
        theirs = scores.overall[METRIC]
        figures[f"{scores.name}_{METRIC}"] = theirs.value
        gain = paired(judged.funnel, scores, METRIC)
        said.append(f"{scores.name} {theirs.value:.4f}")
        if scores.name not in GATE:
            continue
        if gain.value < -ERRORS * gain.se:
            verdict = "fail"
        elif not gain.value > ERRORS * gain.se and verdict == "pass":
            verdict = "inconclusive"
    return Check(
        name=name,
        verdict=verdict,
        detail=f"{METRIC} {ours.value:.4f} ± {ours.se:.4f} on {judged.n_users} users; " + ", ".join(said),
        figures={key: value for key, value in figures.items() if np.isfinite(value)},
        command="streamrec train --until T",
    )


def beaten(judged: Evaluation | None) -> tuple[str, ...]:
    """Baselines with a lower NDCG@10 than the funnel as served, by more than two standard errors, paired over users."""
    if judged is None or not judged.n_users:
        return ()
    gains = {s.name: paired(judged.funnel, s, METRIC) for s in judged.baselines if s.not_run is None}
    return tuple(name for name, gain in gains.items() if gain.value > ERRORS * gain.se)


def baselines(judged: Evaluation | None) -> Check:
    """The ladder is whole, and it pays to climb it: the network is worth its cost over the simpler models."""
    name = "baselines"
    command = "streamrec train --until T"
    if judged is None or not judged.n_users:
        return Check(name=name, verdict="inconclusive", detail="no test window", command=command)
    steps = judged.ladder
    missing = [rung.name for rung in steps.rungs if not np.isfinite(rung.value.value)]
    deep = steps.rung(judged.plain.name)
    # Not worth it is no failure as long as the simpler model cannot be released in its place.
    verdict: Verdict = "pass" if deep.verdict == "worth it" and not missing else "inconclusive"
    said = f"{deep.name} is {deep.verdict}: {deep.why}" if deep.verdict else f"{deep.name}: {deep.why}"
    return Check(
        name=name,
        verdict=verdict,
        detail=f"{said}; the simplest within {steps.tolerance:.0%} of the best is {steps.choice or 'not known'}"
        + (f"; not run: {', '.join(missing)}" if missing else ""),
        figures={f"{rung.name}_{METRIC}": rung.value.value for rung in steps.rungs if np.isfinite(rung.value.value)},
        command=command,
        advisory=True,
    )
