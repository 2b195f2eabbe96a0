"""Each retrieval source as a recommender of its own, beside the linear baseline that it should beat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation.metrics import Estimate
from training.evaluation.protocol import Lists, TestSet
from training.evaluation.report import PAIRED, Scores, score

BESIDE = "ease"


@dataclass(frozen=True, slots=True)
class Alone:
    """gain: metric → difference to `BESIDE` over the same users; empty where that was not run."""

    scores: Scores
    gain: Mapping[str, Estimate] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        gains = {f"{metric}_over_{BESIDE}": e for metric, e in self.gain.items() if np.isfinite(e.value)}
        errors = {f"{name}_se": e.se for name, e in gains.items() if np.isfinite(e.se)}
        return self.scores.plain() | {name: e.value for name, e in gains.items()} | errors


def each_alone(
    sources: Mapping[str, NDArray[np.int64]], test: TestSet, baselines: Sequence[Scores]
) -> tuple[Alone, ...]:
    """sources: name → items best first, [U, 500], -1 padded."""
    beside = next((b for b in baselines if b.name == BESIDE and b.by_user), None)
    found = []
    for name, items in sources.items():
        scores = score(name, Lists(items, items), test)
        gain = {m: Estimate.of(scores.by_user[m] - beside.by_user[m]) for m in PAIRED} if beside else {}
        found.append(Alone(scores, gain))
    return tuple(found)
