"""The two-stage reference: the blend's first 500, ordered by gradient-boosted trees.

The trees learn at moments before the cut. At each the blend is fitted on the rows before it, its candidates are
labelled by the new items of the window after it, and features know only what was before it. Several short, recent
windows are better than one long one: docs/adr/0029.

LightGBM: Ke et al., "LightGBM: A Highly Efficient Gradient Boosting Decision Tree", NeurIPS 2017.
"""

import os
from dataclasses import dataclass

import lightgbm
import numpy as np
from numpy.typing import NDArray

from training.baselines import blend, rerank_features
from training.baselines.past import PLACES, Past, best
from training.interactions import DAY_US
from training.progress import Progress, silent

MOMENTS = 4
WINDOW_D = 30.0
PARTS_OF_SPAN = 8  # a short log has shorter windows, so that half of it stays to fit on
ROUNDS = 300
CHUNK = 128  # users whose features are held at once
MIN_POSITIVES = 20
MIN_ROWS = 50_000  # to learn from, however small the log

PARAMETERS = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 200,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "max_bin": 127,
    "verbosity": -1,
    "deterministic": True,
    "force_col_wise": True,
}


class TooLittle(ValueError):
    """Not enough to learn an order from."""


@dataclass(frozen=True, slots=True)
class TwoStage:
    """rows, positives: what the trees learned from. windows: of the moments, (from, to) in µs, latest first."""

    facts: rerank_features.Facts
    trees: lightgbm.Booster
    rows: int
    positives: int
    windows: tuple[tuple[int, int], ...]

    def recommend(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 [u, 500], best first, -1 after the end."""
        first = self.facts.blend
        candidates = best(first.scores(users), first.met[users])
        score = self.trees.predict(rerank_features.rows(self.facts, users, candidates), num_threads=1)
        score = np.where(candidates >= 0, np.asarray(score).reshape(candidates.shape), -np.inf)
        return np.take_along_axis(candidates, np.argsort(-score, axis=1, kind="stable"), 1)


def windows(past: Past) -> list[tuple[int, int]]:
    """(moment, end of its labels), latest first; they do not overlap."""
    stamps = past.positives.timestamp_us
    span_us = past.until_us - int(stamps.min()) if len(stamps) else 0
    window_us = int(min(WINDOW_D * DAY_US, span_us / PARTS_OF_SPAN))
    if window_us <= 0:
        return []
    return [(past.until_us - (n + 1) * window_us, past.until_us - n * window_us) for n in range(MOMENTS)]


def fit(past: Past, *, first: blend.Blend, seed: int, max_rows: int, progress: Progress = silent) -> TwoStage:
    """first: the blend as of `past`. max_rows: users are drawn so that about so many candidates are learned from.

    Raises:
        TooLittle: fewer than `MIN_POSITIVES` candidates that a user took up.
    """
    found = windows(past)
    random = np.random.default_rng(seed)
    rows, labels = [], []
    for number, (moment_us, to_us) in enumerate(found):
        progress("boosted reference: moments", number, len(found))
        test = past.new_items(moment_us, to_us)
        room = max(1, max_rows // PLACES // len(found))
        chosen = np.sort(random.choice(len(test), room, replace=False)) if len(test) > room else np.arange(len(test))
        if not len(chosen):
            continue
        then = blend.fit(past.before(moment_us))
        facts = rerank_features.gather(then)
        targets = test.targets.take(chosen)
        for at in range(0, len(chosen), CHUNK):
            users = test.users[chosen[at : at + CHUNK]]
            candidates = best(then.scores(users), then.met[users])
            wanted = [targets.items[targets.indptr[n] : targets.indptr[n + 1]] for n in range(at, at + len(users))]
            taken = np.stack([np.isin(c, w) for c, w in zip(candidates, wanted, strict=True)])
            real = candidates.ravel() >= 0
            rows.append(rerank_features.rows(facts, users, candidates)[real])
            labels.append(taken.ravel()[real])
    label = np.concatenate(labels) if labels else np.empty(0, bool)
    if label.sum() < MIN_POSITIVES or label.all():
        raise TooLittle(f"{int(label.sum())} of {len(label)} candidates were taken up: too few to learn an order from")
    progress("boosted reference: moments", len(found), len(found))
    data = lightgbm.Dataset(np.concatenate(rows), label.astype(np.float32))
    trees = lightgbm.train(PARAMETERS | {"seed": seed, "num_threads": threads()}, data, ROUNDS)
    return TwoStage(rerank_features.gather(first), trees, len(label), int(label.sum()), tuple(found))


def threads() -> int:
    return min(2, os.cpu_count() or 1)
