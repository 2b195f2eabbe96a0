"""What stands beside the main table of an evaluation: by group of items, fairness, cold start, overlap of the sides."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.funnel import Funnel
from contracts.catalogue import Catalogue
from contracts.dataset import DatasetConfig
from training.bundles import popular
from training.evaluation import fairness
from training.evaluation.fairness import Impact
from training.evaluation.item_slices import score_items
from training.evaluation.metrics import Estimate
from training.evaluation.protocol import Lists, TestSet
from training.holdout import Window
from training.interactions import Log
from training.leakage.overlap import Sides, sides
from training.study.cohorts import creator_groups, item_cohorts, slice_columns
from training.study.cold import ColdUsers, cold_users

LEAST_USERS = 30
SEGMENTS = ("activity", "tenure", "value")  # besides the slice columns
SMALL = "creators=small"


@dataclass(frozen=True, slots=True)
class Study:
    """items: group of items → metric → estimate over the users who wished for one. impacts: disparate impact, of what.
    cold: new users. sides: what the test window has in common with its training."""

    items: Mapping[str, Mapping[str, Estimate]]
    impacts: tuple[Impact, ...]
    cold: ColdUsers
    sides: Sides

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
) -> Study:
    """slices: masks over the test users. answers: what the funnel showed them."""
    everybodys = popular(log, catalogue).astype(np.int64)
    return Study(
        score_items(answers, test, item_cohorts(log, catalogue)),
        tuple(_impacts(config, log, test, catalogue, slices, answers, seed)),
        cold_users(folder, config, log, funnel, everybodys, window.from_us, window.to_us, seed=seed),
        sides(log, window, test),
    )


def _impacts(
    config: DatasetConfig,
    log: Log,
    test: TestSet,
    catalogue: Catalogue,
    slices: Mapping[str, NDArray[np.bool_]],
    answers: Lists,
    seed: int,
) -> list[Impact]:
    if not len(test):
        return []
    creators = creator_groups(log, catalogue)
    found = []
    if creators:
        found.append(fairness.exposure(answers.slates, test, creators, least_users=LEAST_USERS, seed=seed))
        found.append(fairness.recall_by_items(answers.slates, test, creators, least_users=LEAST_USERS, seed=seed))
    for group in (*slice_columns(config), *SEGMENTS):
        masks = {name: mask for name, mask in slices.items() if name.split("=", 1)[0] == group}
        if not masks:
            continue
        found.append(fairness.recall_by_users(answers.slates, test, group, masks, least_users=LEAST_USERS, seed=seed))
        if creators:
            found.append(
                fairness.exposure_by_users(
                    answers.slates, test, group, masks, creators[SMALL], least_users=LEAST_USERS, seed=seed
                )
            )
    return found
