"""The study of benchmarks/drift.py in small: how often nothing is called something, and that what changed is named."""

import numpy as np
import pyarrow as pa
from scipy.stats import binom

from monitoring.drift.compare import compare
from monitoring.drift.engines.permutations import ENOUGH, MOST, sequential_p
from monitoring.drift.engines.scipy import Scipy
from monitoring.drift.frame import Frame
from monitoring.drift.online.cusum import Cusum, threshold
from monitoring.drift.online.rate import Rate
from monitoring.drift.question import Question

WINDOWS = 30


def drawn(seed: int, rows: int, *, price: float = 1.0) -> Frame:
    rng = np.random.default_rng(seed)
    score = rng.beta(2, 10, rows)
    columns = {
        "price": price * rng.lognormal(2, 1, rows),
        "hour": rng.integers(0, 24, rows),
        "country": rng.choice(["DE", "FR", "US"], rows, p=[0.1, 0.3, 0.6]),
        "item_id": rng.zipf(1.5, rows) % 500,
        "position": rng.integers(1, 11, rows),
        "score": score,
        "label": rng.random(rows) < score,
    }
    return Frame(pa.table(columns))


def alarms(price: float) -> int:
    return sum(
        compare(
            drawn(seed, 6_000),
            drawn(1_000 + seed, 1_500, price=price),
            engine=Scipy(),
            now_us=0,
            ask=Question(seed=seed),
        ).verdict
        == "drift"
        for seed in range(WINDOWS)
    )


def test_windows_without_drift_raise_no_more_alarms_than_five_percent_allows() -> None:
    assert alarms(price=1.0) <= binom.ppf(0.95, WINDOWS, 0.05)


def test_a_price_that_rose_is_found_in_nearly_every_window() -> None:
    assert alarms(price=1.2) >= 0.95 * WINDOWS


def test_permutation_p_values_that_stop_early_are_still_at_least_uniform() -> None:
    rng = np.random.default_rng(3)

    def p() -> float:
        observed = rng.random()  # the share of permutations above it is uniform when nothing changed
        return sequential_p(lambda count: int((rng.random(count) >= observed).sum()), 100)

    found = np.array([p() for _ in range(3_000)])
    for level in (0.01, 0.05, 0.2):
        assert (found <= level).sum() <= binom.ppf(0.999, len(found), level)
    assert found.min() > 0


def test_permutations_end_at_the_most_or_when_there_are_enough() -> None:
    asked: list[int] = []
    assert sequential_p(lambda n: asked.append(n) or 0, 300) == 1 / (MOST + 1)  # type: ignore[func-returns-value]
    assert asked == [300, 300, 300, 100]
    assert sequential_p(lambda n: ENOUGH, 100) == (ENOUGH + 1) / 101


def test_cumulative_sums_run_as_long_as_siegmund_says() -> None:
    """Montgomery (2009), table 9.3: k 0.5, h 5 runs 465 rows on average, two-sided. Ours has k 0.1: simulated."""
    rng = np.random.default_rng(4)
    detector = Cusum(rng.normal(size=200_000), ert=500, seed=4)
    alarms = sum(detector.update(row) is not None for row in rng.normal(size=40_000))
    assert 60 <= alarms <= 100  # 80 are due
    assert threshold(500) < threshold(5_000)


def test_a_rates_run_time_is_at_least_what_was_asked_for_and_a_doubled_rate_is_seen_soon() -> None:
    rng = np.random.default_rng(5)
    reference = np.arange(20_000) < 1_000
    detector = Rate(reference, ert=500, seed=5)
    assert sum(detector.update(hit) is not None for hit in rng.random(40_000) < 0.05) <= 80
    detector = Rate(reference, ert=500, seed=5)
    seen = [a.rows for hit in rng.random(20_000) < 0.1 if (a := detector.update(hit))]
    assert np.mean(seen) < 250
