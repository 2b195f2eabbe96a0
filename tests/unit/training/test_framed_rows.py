"""What a framing does to the rows that the rankers learn from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from contracts.dataset import DatasetConfig, Positive
from contracts.errors import DataError
from contracts.framing import Costs, Framing, RankingFrame
from training import ranking
from training.evaluate import ranking_rows
from training.evaluation.protocol import hold_out
from training.interactions import DAY_US
from training.ranking import RankingConfig, fit_rankers


@dataclass(frozen=True)
class Found:
    items: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.items)


class ThreeCandidates:
    """A funnel that finds items 0, 1 and 2 for everybody."""

    def candidates(self, query: object, state: object) -> tuple[object, Found]:
        return None, Found(np.arange(3))

    def rows(self, query: object, profile: object, found: Found) -> NDArray[np.float32]:
        return np.zeros((3, 2), np.float32)


def test_a_row_that_is_wished_for_carries_what_the_wish_is_worth() -> None:
    test = hold_out(
        train_users=np.array([0, 1]),
        train_items=np.array([3, 3]),
        test_users=np.array([0, 1, 1]),
        test_items=np.array([1, 0, 2]),
        n_items=4,
    )
    worth = csr_matrix(np.array([[0, 5, 0, 0], [1, 0, 2, 0]], np.float32))
    met = csr_matrix(np.array([[0, 0, 0, 1], [0, 0, 0, 1]], np.float32))
    funnel: Any = ThreeCandidates()
    rows = ranking_rows(funnel, {}, test, ["u0", "u1"], met, 0, worth=worth)
    assert rows.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert rows.gains.tolist() == [1, 5, 1, 1, 1, 2]
    assert ranking_rows(funnel, {}, test, ["u0", "u1"], met, 0).weights(Costs()).tolist() == [1] * 6


def test_each_moment_looks_as_far_ahead_as_the_horizon_and_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One event an hour for a hundred days: a window of a tenth is ten days long."""
    stamps = np.arange(2400, dtype=np.int64) * 3_600_000_000
    pq.write_table(
        pa.table({"timestamp": pa.array(stamps, pa.timestamp("us", "UTC"))}), tmp_path / "interactions.parquet"
    )
    asked: list[tuple[float, float, object]] = []

    def collect(folder: Path, config: object, from_us: int, to_us: int, fit: object, **given: object) -> object:
        asked.append((from_us / DAY_US, to_us / DAY_US, given["gains"]))
        raise DataError("nothing there")

    monkeypatch.setattr(ranking, "collect", collect)
    shop = DatasetConfig(name="shop", positives=(Positive(event="click"),))
    framing = Framing(ranking=RankingFrame(gains={"click": 2}))
    for horizon_d in (None, 4.0):
        config = RankingConfig(window_share=0.1, horizon_d=horizon_d, ranker="linear")
        fit: Any = None
        fit_rankers(tmp_path, shop, 100 * DAY_US, fit, seed=0, ranking=config, framing=framing)
    assert asked == [(90, 100, {"click": 2}), (90, 94, {"click": 2})]
