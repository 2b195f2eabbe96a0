"""Which calibration maps the ranker's logits to probabilities best: Platt's line, or isotonic steps. The chosen serves.

Isotonic regression is made strictly monotone before it is judged: straight lines in log odds between the centres of its
steps, with a small slope where they are flat, and Platt's slope beyond their ends, where no row tells. So neither
changes the order within a user, and ranking metrics do not see the choice.
Zadrozny & Elkan, "Transforming classifier scores into accurate multiclass probability estimates", KDD 2002. R rows.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from bentos.recommender.rankers.steps import Steps
from training.evaluation import metrics
from training.models.dcn_v2 import platt

Method = Literal["platt", "isotonic"]

FOLDS = 5
LEAST_POSITIVES = 50
WORTH = 0.01  # of the log loss: less is not worth more nodes in the graph that serves
KNOTS = 32  # of the steps, evenly drawn: 500 rows are held against each in the request
FLAT = 0.01  # of Platt's slope, where isotonic steps are flat


@dataclass(frozen=True, slots=True)
class Fitted:
    """Out of fold. gap: mean of the predictions over the share of positives, minus 1."""

    ece: float
    log_loss: float
    gap: float


@dataclass(frozen=True, slots=True)
class Choice:
    """gain: log loss that isotonic saves, as a share of Platt's, with its standard error over users; NaN unknown.

    steps: of all validation rows, where isotonic is chosen.
    """

    chosen: Method
    why: str
    platt: Fitted | None = None
    isotonic: Fitted | None = None
    gain: float = float("nan")
    gain_se: float = float("nan")
    positives: int = 0
    steps: Steps | None = None

    @property
    def figures(self) -> dict[str, float]:
        """For MLflow: finite numbers only."""
        found = {"gain": self.gain, "gain_se": self.gain_se, "positives": float(self.positives)}
        for name in ("platt", "isotonic"):
            fitted = getattr(self, name)
            found |= {f"{name}_{key}": value for key, value in asdict(fitted).items()} if fitted else {}
        return {f"calibration_{key}": float(value) for key, value in found.items() if np.isfinite(value)}

    def plain(self) -> dict[str, Any]:
        steps = {} if self.steps is None else {"log_odds": self.steps.x.tolist(), "become": self.steps.y.tolist()}
        return {"chosen": self.chosen, "why": self.why, **self.figures, **steps}


def isotonic(logits: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]) -> Steps:
    """Steps of isotonic regression, as lines between their centres: logits → log odds."""
    x = logits.astype(np.float64)
    slope, _ = platt(x, labels)
    values, at = np.unique(IsotonicRegression(y_min=0, y_max=1).fit_transform(x, labels), return_inverse=True)
    n = np.bincount(at)
    centres = (np.bincount(at, x) / n).astype(np.float32)
    # A step at 0 would promise that nothing ever happens there: Laplace's half a success instead.
    p = np.clip((values * n + 0.5 * labels.mean()) / (n + 0.5), 1e-9, 1 - 1e-9)
    kept = np.unique(np.linspace(0, len(n) - 1, min(KNOTS, len(n))).round().astype(np.int64))
    centres, log_odds = centres[kept], np.maximum.accumulate(np.log(p / (1 - p))[kept])
    log_odds += FLAT * slope * (centres - centres[0])
    # Lines between centres lie above or below their steps: a line over all of them makes the mean that of the labels.
    scale, offset = platt(_through(centres, log_odds, slope)(x.astype(np.float32)), labels)
    return _through(centres, scale * log_odds + offset, scale * slope)


def _through(x: NDArray[np.float32], y: NDArray[np.float64], tail: float) -> Steps:
    """Through those of the knots that rise as float32 too."""
    rounded = y.astype(np.float32)
    rising = np.concatenate([[True], (np.diff(x) > 0) & (np.diff(rounded) > 0)])
    return Steps(x[rising], rounded[rising], tail)


def choose(
    logits: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], users: NDArray[np.integer[Any]], *, seed: int
) -> Choice:
    """Both, fitted and judged on validation rows by turns (5 folds of people), by log loss, which is proper.

    logits: of the ranker as it is served with Platt's line, so that the steps have those for what they read.

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
        log_odds = isotonic(logits[rest], labels[rest])(logits[out].astype(np.float32))
        steps[out] = 1 / (1 + np.exp(-np.clip(log_odds.astype(np.float64), -40, 40)))
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
        isotonic(logits, labels) if better else None,
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
