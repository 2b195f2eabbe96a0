"""From lists to figures: every metric of the protocol with its standard error, overall and per slice. NumPy only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation import metrics
from training.evaluation.metrics import Calibration, Estimate
from training.evaluation.protocol import Lists, TestSet

K = 10
CANDIDATES = 500
PAIRED = ("ndcg@10", "recall@500")  # kept by user
RECALL_AT = (10, 20, 50, 100, 200, 300, 400, 500)


@dataclass(frozen=True, slots=True)
class Scores:
    """One recommender. slices: slice → metric → estimate. by_user: metric → float64 [U], in the order of the test set,
    for comparisons of two models on the same users."""

    name: str
    overall: Mapping[str, Estimate]
    slices: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    not_run: str | None = None  # the reason, when there are no figures
    by_user: Mapping[str, NDArray[np.float64]] = field(default_factory=dict, repr=False)

    def value(self, metric: str) -> float:
        return self.overall[metric].value

    def plain(self) -> dict[str, Any]:
        """For JSON: metric → value, and `{metric}_se`; a figure that is not known is None."""
        if self.not_run is not None:
            return {"not_run": self.not_run}
        flat: dict[str, Any] = {}
        for metric, estimate in self.overall.items():
            flat[metric] = _number(estimate.value)
            flat[f"{metric}_se"] = _number(estimate.se)
        return flat

    def plain_slices(self) -> dict[str, Any]:
        return {
            name: {m: {"value": _number(e.value), "se": _number(e.se), "n": e.n} for m, e in estimates.items()}
            for name, estimates in self.slices.items()
        }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def score(name: str, lists: Lists, test: TestSet, slices: Mapping[str, NDArray[np.bool_]] | None = None) -> Scores:
    """Figures of one recommender on a test set."""
    values = metrics.per_user(lists.slates, test.targets, K)
    counts = test.targets.counts
    values[f"recall@{CANDIDATES}"] = metrics.recall(
        metrics.hits(lists.candidates[:, :CANDIDATES], test.targets), counts, CANDIDATES
    )
    for source, items in (lists.sources or {}).items():
        values[f"recall@{CANDIDATES}:{source}"] = metrics.recall(
            metrics.hits(items[:, :CANDIDATES], test.targets), counts, CANDIDATES
        )
    overall = {metric: Estimate.of(v) for metric, v in values.items()}
    overall["coverage"] = metrics.coverage(lists.slates, test.n_items, K)
    by_slice = {
        label: {metric: Estimate.of(v[mask]) for metric, v in values.items()}
        | {"coverage": metrics.coverage(lists.slates[mask], test.n_items, K)}
        for label, mask in (slices or {}).items()
    }
    return Scores(name, overall, by_slice, by_user={metric: values[metric] for metric in PAIRED})


def recall_curve(lists: NDArray[np.int64], test: TestSet) -> dict[int, float]:
    """Mean recall at several depths of one ordered list. Empty without users."""
    if not len(test):
        return {}
    hit = metrics.hits(lists, test.targets)
    return {k: float(metrics.recall(hit, test.targets.counts, k).mean()) for k in RECALL_AT}


@dataclass(frozen=True, slots=True)
class RankerScores:
    """A ranker as a classifier of candidate rows. se: over users, from their own figures."""

    auc: Estimate
    log_loss: Estimate
    ece: float
    calibration: Calibration
    n_rows: int
    base_rate: float

    def plain(self) -> dict[str, Any]:
        return {
            "auc": _number(self.auc.value),
            "auc_se": _number(self.auc.se),
            "log_loss": _number(self.log_loss.value),
            "log_loss_se": _number(self.log_loss.se),
            "ece": _number(self.ece),
            "base_rate": _number(self.base_rate),
        }


def score_ranker(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], users: NDArray[np.integer[Any]]
) -> RankerScores:
    """AUC and log loss over all rows; their errors from the users' own means (AUC: users with both classes)."""
    if not len(labels):
        nothing = Estimate(float("nan"), float("nan"), 0)
        return RankerScores(nothing, nothing, float("nan"), metrics.calibration(probabilities, labels), 0, float("nan"))
    order = np.argsort(users, kind="stable")
    cuts = np.flatnonzero(np.diff(users[order])) + 1
    groups = np.split(order, cuts)
    own_auc = np.array([metrics.auc(probabilities[g], labels[g]) for g in groups])
    own_loss = np.array([metrics.log_loss(probabilities[g], labels[g]) for g in groups])
    own_auc = own_auc[np.isfinite(own_auc)]
    curve = metrics.calibration(probabilities, labels)
    return RankerScores(
        Estimate(metrics.auc(probabilities, labels), Estimate.of(own_auc).se, len(own_auc)),
        Estimate(metrics.log_loss(probabilities, labels), Estimate.of(own_loss).se, len(own_loss)),
        curve.ece,
        curve,
        len(labels),
        float(np.mean(labels)),
    )
