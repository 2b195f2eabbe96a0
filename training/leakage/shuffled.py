"""A run on shuffled labels must fall to chance: what it still finds, it has from rows that know their labels.

The labels are drawn before anything is made of the log (future.py), so a feature that looked past the cut knows them;
where labels change places among rows that are made already, no column can, and only the fit itself is put to the test.

Zhang et al., "Understanding deep learning requires rethinking generalization", ICLR 2017, and scikit-learn's
permutation test (Ojala & Garriga, JMLR 2010) use the same device. R rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from contracts.checklist import TRAIN
from contracts.evidence import Check, Verdict
from contracts.serving import Ranker
from features.ranking import RowSchema
from training.evaluation.metrics import auc, auc_se
from training.models.dcn_v2 import DcnConfig, RankingRows, fit_dcn, predict
from training.models.logistic import fit_logistic
from training.models.trees import TreesConfig, fit_trees

HELD_OUT = 0.4
LEAST_POSITIVES = 30
Z = 3.0
CHANCE = 0.5
BAND = 0.05  # an interval that ends above this much over chance has not shown that there is nothing

# (rows to learn from, rows to judge on) → scores of the latter, float [R].
Procedure = Callable[[RankingRows, RankingRows], NDArray[np.floating]]  # type: ignore[type-arg]


def rankers_again(
    schema: RowSchema, ranker: Ranker, dcn: DcnConfig, trees: TreesConfig, seed: int
) -> dict[str, Procedure]:
    """The ranker that serves and the light one as the training fits them, but with a few steps or trees only."""
    steps = replace(dcn, epochs=1, min_steps=min(dcn.min_steps, 40))
    few = replace(trees, rounds=min(trees.rounds, 40))
    procedures: dict[str, Procedure] = {
        "dcn": lambda learn, judge: predict(fit_dcn(schema, learn, learn, seed=seed, config=steps), judge.rows),
        "trees": lambda learn, judge: fit_trees(schema, learn, learn, seed=seed, config=few).predict(judge.rows),
        "logistic": lambda learn, judge: fit_logistic(schema, learn, learn, seed=seed, max_rows=30_000).predict(
            judge.rows
        ),
    }
    served = ("trees", "dcn") if ranker == "ensemble" else (ranker,)
    return {name: fit for name, fit in procedures.items() if name in (*served, "logistic")}


def shuffled_labels(rows: RankingRows, procedures: Mapping[str, Procedure], *, seed: int) -> Check:
    """rows: with labels that were drawn. Each procedure learns on some users and is judged on the others."""
    order = np.random.default_rng(seed).permutation(rows.n_users)
    cut = round(rows.n_users * HELD_OUT)
    learn, judge = rows.take(np.sort(order[cut:])), rows.take(np.sort(order[:cut]))
    positives = int(judge.labels.sum())
    if min(positives, int(learn.labels.sum()), len(judge.labels) - positives) < LEAST_POSITIVES:
        return Check(
            name="leakage_shuffled",
            verdict="inconclusive",
            detail=f"{positives} positive rows to judge a shuffled run on, of {LEAST_POSITIVES}",
            command=TRAIN,
        )
    verdict: Verdict = "pass"
    figures, said = {}, []
    for name, fit in procedures.items():
        found = auc(fit(learn, judge), judge.labels)
        error = auc_se(found, positives, len(judge.labels) - positives)
        figures[f"{name}_shuffled_auc"] = found
        said.append(f"{name} {found:.3f} ± {Z * error:.3f}")
        if found - Z * error > CHANCE:
            verdict = "fail"
        elif found + Z * error > CHANCE + BAND and verdict == "pass":
            verdict = "inconclusive"
    return Check(
        name="leakage_shuffled",
        verdict=verdict,
        detail=f"AUC after learning labels that were drawn, on other users: {', '.join(said)} (chance is {CHANCE:g})",
        figures=figures,
        command=TRAIN,
    )
