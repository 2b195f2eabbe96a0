"""How items stand with everybody as of a moment: what a retriever adds to taste. Shapes: N items."""

import numpy as np
from numpy.typing import NDArray

from training.interactions import DAY_US, Positives, decay

STANDING_HALF_LIVES_D = (3.0, 14.0, 60.0)
STANDING = 2 * len(STANDING_HALF_LIVES_D) + 2
MIN_PERIODS, MAX_PERIODS = 12, 52


def standings(
    positives: Positives, published_us: NDArray[np.int64], moments_us: NDArray[np.int64]
) -> NDArray[np.float32]:
    """How items stand as of each moment, from events strictly before it: float32 [moments, N, STANDING].

    For each half-life the count against the mean item's, as a logarithm and as a capped ratio; then the item's age,
    as a logarithm and as a freshness that halves every two weeks.
    """
    out = np.zeros((len(moments_us), len(published_us), STANDING), dtype=np.float32)
    order = np.argsort(positives.timestamp_us, kind="stable")
    time, item, weight = positives.timestamp_us[order], positives.item[order], positives.weight[order]
    for m, moment in enumerate(moments_us.tolist()):
        until = int(np.searchsorted(time, moment, side="left"))
        for h, half_life_d in enumerate(STANDING_HALF_LIVES_D):
            decayed = weight[:until] * decay(time[:until], moment, half_life_d)
            count = np.bincount(item[:until], weights=decayed, minlength=len(published_us))
            ratio = count / max(float(count.mean()), 1e-9)
            out[m, :, 2 * h] = np.log(ratio + 0.01)
            out[m, :, 2 * h + 1] = np.minimum(ratio, 10.0) / 3
        age_d = np.maximum(0.0, (moment - published_us) / DAY_US)
        out[m, :, -2] = np.log1p(age_d) - 3
        out[m, :, -1] = 2 * np.exp2(-age_d / 14)
    return out


def period_ends(log: Positives, period_d: float) -> NDArray[np.int64]:
    """Moments that part the log into periods, the last one the cut: int64 [periods + 1], in order."""
    first = int(log.timestamp_us.min())
    length = min(period_d * DAY_US, max((log.until_us - first) / MIN_PERIODS, 1.0))
    periods = int(np.clip(np.ceil((log.until_us - first) / length), 1, MAX_PERIODS))
    return (log.until_us - length * np.arange(periods, -1, -1)).astype(np.int64)
