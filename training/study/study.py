"""What stands beside the main table of an evaluation: by group of items, fairness, cold start, overlap of the sides."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.funnel import Funnel
from contracts.catalogue import Catalogue
from contracts.dataset import DatasetConfig
from contracts.quality import FairnessLimits
from training.bundles import popular
from training.evaluation import fairness
from training.evaluation.fairness import Impact, Judged
from training.evaluation.item_slices import score_items
from training.evaluation.metrics import Estimate
from training.evaluation.protocol import Lists, TestSet
from training.evaluation.report import CANDIDATES
from training.holdout import Window
from training.interactions import Log
from training.leakage.overlap import Sides, sides
from training.study.cohorts import creator_groups, item_cohorts, slice_columns, without_slices
from training.study.cold import ColdUsers, cold_users

LEAST_USERS = FairnessLimits().least_users
SEGMENTS = ("activity", "tenure", "value")  # besides the slice columns
SMALL = "creators=small"


@dataclass(frozen=True, slots=True)
class Study:
    """items: group of items → metric → estimate over the users who wished for one. impacts: disparate impact, of what.
    cold: new users. sides: what the test window has in common with its training. lacking: what would be sliced by and
    is not → why. candidate_share: of the catalogue that is in a user's candidates, the mean; NaN unknown."""

    items: Mapping[str, Mapping[str, Estimate]]
    impacts: tuple[Impact, ...]
    cold: ColdUsers
    sides: Sides
    lacking: Mapping[str, str] = field(default_factory=dict)
    candidate_share: float = float("nan")

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "items": {
                name: {
                    metric: {"value": _number(e.value), "se": _number(e.se), "n": e.n} for metric, e in found.items()
                }
                for name, found in self.items.items()
            },
            "fairness": [impact.plain() for impact in self.impacts],
            "cold_start": self.cold.plain(),
        }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def study(
    folder: Path,
    config: DatasetConfig,
    log: Log,
    window: Window,
    test: TestSet,
    catalogue: Catalogue,
    slices: Mapping[str, NDArray[np.bool_]],
    answers: Lists,
    funnel: Funnel,
    *,
    seed: int,
    least_users: int = LEAST_USERS,
) -> Study:
    """slices: masks over the test users. answers: what the funnel showed them. least_users: of a group, for it to have
    a part in disparate impact."""
    everybodys = popular(log, catalogue).astype(np.int64)
    candidates = answers.candidates[:, :CANDIDATES]
    return Study(
        score_items(answers, test, item_cohorts(log, catalogue)),
        tuple(_impacts(config, log, test, catalogue, slices, answers, least_users)),
        cold_users(folder, config, log, funnel, everybodys, window.from_us, window.to_us, seed=seed),
        sides(log, window, test),
        without_slices(config, catalogue, slices),
        float((candidates >= 0).sum(axis=1).mean()) / len(catalogue) if len(candidates) else float("nan"),
    )


def _impacts(
    config: DatasetConfig,
    log: Log,
    test: TestSet,
    catalogue: Catalogue,
    slices: Mapping[str, NDArray[np.bool_]],
    answers: Lists,
    least_users: int,
) -> list[Impact]:
    if not len(test):
        return []
    creators = creator_groups(log, catalogue)
    segments = {
        group: {name: mask for name, mask in slices.items() if name.split("=", 1)[0] == group}
        for group in (*slice_columns(config), *SEGMENTS)
    }
    segments = {group: masks for group, masks in segments.items() if masks}
    judged = Judged(least_users, together=2 + 2 * len(segments) if creators else len(segments))
    found = []
    if creators:
        found.append(fairness.exposure(answers.slates, test, creators, judged))
        found.append(fairness.recall_by_items(answers.slates, test, creators, judged))
    for group, masks in segments.items():
        found.append(fairness.recall_by_users(answers.slates, test, group, masks, judged))
        if creators:
            found.append(fairness.exposure_by_users(answers.slates, test, group, masks, creators[SMALL], judged))
    return found
