"""Who and what may not be on both sides: people, pairs and moments."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from contracts.checklist import TRAIN
from contracts.evidence import Check, Verdict
from training.evaluation.protocol import TestSet
from training.holdout import Window
from training.interactions import Log


@dataclass(frozen=True, slots=True)
class Sides:
    """What one test window has in common with its training. targets: in all; met: of those, pairs that training had;
    late: training events at or after the cut; early: events of the window before it."""

    targets: int
    met: int
    late: int
    early: int


def sides(log: Log, window: Window, test: TestSet) -> Sides:
    """Counted anew from the rows, so that a fault of the protocol shows."""
    positives = log.positives()
    span = 1 + max(
        int(positives.item.max(initial=0)), int(test.targets.items.max(initial=0)), int(window.item.max(initial=0))
    )
    trained = positives.user.astype(np.int64) * span + positives.item
    asked = np.repeat(test.users, test.targets.counts) * span + test.targets.items
    return Sides(
        len(asked),
        int(np.isin(asked, trained).sum()),
        int((log.timestamp_us >= window.from_us).sum()),
        int((window.timestamp_us < window.from_us).sum()),
    )


def no_overlap(learned: Collection[str], held_out: Collection[str], found: Sides | None) -> Check:
    """learned, held_out: ids of the users whose rows the ranker learned from, and of those that it was stopped and
    calibrated on. found: None without a test window."""
    both = set(learned) & set(held_out)
    problems = []
    if both:
        problems.append(f"{len(both)} users are learned from and held out ({', '.join(sorted(both)[:3])}, …)")
    if found is not None:
        if found.met:
            problems.append(f"{found.met} of {found.targets} targets are pairs that training had")
        if found.late or found.early:
            problems.append(f"{found.late} training events at or after the cut, {found.early} of the window before it")
    unknown = found is None or not found.targets or not held_out
    verdict: Verdict = "fail" if problems else "inconclusive" if unknown else "pass"
    told = f"{len(set(learned))} users learned from and {len(set(held_out))} held out share nobody"
    window = "no target in a test window" if unknown else f"none of {found.targets if found else 0} targets was met"
    return Check(
        name="leakage_overlap",
        verdict=verdict,
        detail="; ".join(problems) or f"{told}; {window}",
        figures={"shared_users": float(len(both)), "met_targets": float(found.met if found else 0)},
        command=TRAIN,
    )
