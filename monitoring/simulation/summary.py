"""Many runs of a scenario in a few figures, and whether they are as they must be."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy.stats import binom

from monitoring.simulation.in_process import Outcome

SHARES = (0.1, 0.5, 0.9, 1.0)
SURE = 0.999  # of the binomial bound


@dataclass(frozen=True, slots=True)
class Summary:
    """users_met, users_harmed, minutes: quantiles (10 %, median, 90 %, most) over the runs."""

    scenario: str
    runs: int
    ends: dict[str, int]
    users_met: tuple[float, ...]
    users_harmed: tuple[float, ...]
    minutes: tuple[float, ...]
    requests_to_candidate: tuple[float, ...]
    failed_requests: int

    def document(self) -> dict[str, object]:
        return asdict(self)


def summarise(outcomes: Sequence[Outcome]) -> Summary:
    return Summary(
        outcomes[0].scenario,
        len(outcomes),
        dict(Counter(o.end for o in outcomes).most_common()),
        _quantiles([o.users_met for o in outcomes]),
        _quantiles([o.users_harmed for o in outcomes]),
        _quantiles([o.minutes for o in outcomes]),
        _quantiles([o.requests_to_candidate for o in outcomes]),
        sum(o.failed_requests for o in outcomes),
    )


def most_by_chance(runs: int, alpha: float) -> int:
    """So many of the runs may end in a wrong rollback, each with chance α at most: more is seen once in 1,000 times."""
    return int(binom.ppf(SURE, runs, alpha))


def _quantiles(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(float(v), 1) for v in np.quantile(values, SHARES))
