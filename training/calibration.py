"""Which calibration maps the ranker's logits to probabilities best: Platt's line, or isotonic steps.

Isotonic regression is made strictly monotone before it is judged: straight lines between the centres of its steps, and
a small slope along them. So neither changes the order within a user, and ranking metrics do not see the choice.
Zadrozny & Elkan, "Transforming classifier scores into accurate multiclass probability estimates", KDD 2002. R rows.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from training.evaluation import metrics
from training.models.dcn_v2 import platt

Method = Literal["platt", "isotonic"]

FOLDS = 5
LEAST_POSITIVES = 50
WORTH = 0.01  # of the log loss: less is not worth a second thing to export and to keep in step
SLOPE = 1e-6  # of probability a unit of logit, where isotonic steps are flat


@dataclass(frozen=True, slots=True)
class Fitted:
    """Out of fold. gap: mean of the predictions over the share of positives, minus 1."""

    ece: float
    log_loss: float
    gap: float


@dataclass(frozen=True, slots=True)
class Choice:
    """gain: log loss that isotonic saves, as a share of Platt's, with its standard error over users; NaN unknown."""

    chosen: Method
    why: str
    platt: Fitted | None = None
    isotonic: Fitted | None = None
    gain: float = float("nan")
    gain_se: float = float("nan")
    positives: int = 0

    @property
    def figures(self) -> dict[str, float]:
        """For MLflow: finite numbers only."""
        found = {"gain": self.gain, "gain_se": self.gain_se, "positives": float(self.positives)}
        for name in ("platt", "isotonic"):
            fitted = getattr(self, name)
            found |= {f"{name}_{key}": value for key, value in asdict(fitted).items()} if fitted else {}
        return {f"calibration_{key}": float(value) for key, value in found.items() if np.isfinite(value)}

    def plain(self) -> dict[str, Any]:
        return {"chosen": self.chosen, "why": self.why, **self.figures}


@dataclass(frozen=True, slots=True)
class Monotone:
    """A strictly rising table: straight lines between `x` (logits, rising) and `p`, the end slopes kept small."""

    x: NDArray[np.float64]
    p: NDArray[np.float64]

    def __call__(self, logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        x = logits.astype(np.float64)
        lines = np.interp(x, self.x, self.p)
        beyond = SLOPE * (np.minimum(x - self.x[0], 0) + np.maximum(x - self.x[-1], 0))
        return np.asarray(np.clip(lines + beyond, 1e-9, 1 - 1e-9))


def isotonic(logits: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]) -> Monotone:
    """Steps of isotonic regression, as lines between their centres."""
    x = logits.astype(np.float64)
    steps = IsotonicRegression(y_min=0, y_max=1).fit_transform(x, labels)
    values, at = np.unique(steps, return_inverse=True)
    centres = np.bincount(at, x) / np.bincount(at)
    rising = np.concatenate([[True], np.diff(centres) > 1e-9])
    centres, values = centres[rising], values[rising]
    # A step at 0 would promise that nothing ever happens there: Laplace's half a success instead.
    n = np.bincount(at)[rising]
    values = (values * n + 0.5 * labels.mean()) / (n + 0.5)
    values = np.maximum.accumulate(values) + SLOPE * (centres - centres[0])
    return Monotone(centres, values)


def choose(
    logits: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], users: NDArray[np.integer[Any]], *, seed: int
) -> Choice:
    """Both, fitted and judged on validation rows by turns (5 folds of users), by log loss, which is proper.

    Isotonic is chosen where it saves more than `WORTH` of the log loss beyond two standard errors.
    """
    positives = int(labels.sum())
    if positives < LEAST_POSITIVES:
        return Choice("platt", f"{positives} positive validation rows, of {LEAST_POSITIVES}", positives=positives)
    distinct, person = np.unique(users, return_inverse=True)
    fold = np.random.default_rng(seed).permutation(len(distinct))[person] % FOLDS
    line, steps = np.empty(len(labels)), np.empty(len(labels))
    for number in range(FOLDS):
        out, rest = fold == number, fold != number
        slope, offset = platt(logits[rest], labels[rest])
        line[out] = 1 / (1 + np.exp(-np.clip(slope * logits[out].astype(np.float64) + offset, -40, 40)))
        steps[out] = isotonic(logits[rest], labels[rest])(logits[out])
    own = [np.bincount(person, _loss(p, labels)) / np.bincount(person) for p in (line, steps)]
    whole = metrics.log_loss(line, labels)
    saved = (own[0] - own[1]) / whole
    gain = float((whole - metrics.log_loss(steps, labels)) / whole)
    error = float(saved.std(ddof=1) / np.sqrt(len(saved))) if len(saved) > 1 else float("nan")
    better = gain - 2 * error > WORTH
    found = f"isotonic saves {gain:+.2%} ± {2 * error:.2%} of the log loss out of fold"
    return Choice(
        "isotonic" if better else "platt",
        f"{found}, {'more' if better else 'not surely more'} than {WORTH:.0%}",
        _fitted(line, labels),
        _fitted(steps, labels),
        gain,
        error,
        positives,
    )


def _loss(probabilities: NDArray[np.float64], labels: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    p = np.clip(probabilities, 1e-7, 1 - 1e-7)
    return np.asarray(-np.where(labels > 0, np.log(p), np.log1p(-p)))


def _fitted(probabilities: NDArray[np.float64], labels: NDArray[np.integer[Any]]) -> Fitted:
    return Fitted(
        metrics.calibration(probabilities, labels).ece,
        metrics.log_loss(probabilities, labels),
        float(probabilities.mean() / labels.mean() - 1),
    )
