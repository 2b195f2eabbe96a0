"""Every baseline, fitted on what was before a cut, asked for the users of a test set, and timed."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from contracts.catalogue import Catalogue
from training.baselines import blend, decayed_ease, ease, item_knn, popularity, two_stage
from training.baselines.past import PLACES, Past, Recommend, best
from training.evaluation.ladder import TOLERANCE, Cost, Entry, Family
from training.evaluation.metrics import pad
from training.evaluation.protocol import Lists, TestSet
from training.evaluation.report import Scores, score
from training.interactions import Log
from training.progress import Progress, silent

MAX_CELLS = 2_000_000_000  # users × items that are scored one by one; sorting them takes some minutes
TIMED_REQUESTS = 15
CHUNK_CELLS = 2_000_000  # users × items whose scores are held at once


class LadderConfig(BaseModel):
    """How the ladder is built and read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tolerance: float = Field(TOLERANCE, ge=0, lt=1, description="what a more complex model must bring, relative")
    boosted: bool = Field(True, description="fit the two-stage reference with boosted trees")
    rows_per_event: float = Field(
        2.5, gt=0, description="candidates that the boosted trees learn from, for each positive event before the cut"
    )
    max_rows: int = Field(1_500_000, ge=1000, description="the same, at most")


class NotRun(Exception):
    """Why a baseline has no figures."""


@dataclass(slots=True)
class Fits:
    """What the baselines share as of a cut. blend_s: how long the blend took to fit, also for what stands on it."""

    past: Past
    met: csr_matrix
    config: LadderConfig
    seed: int
    progress: Progress
    blend_s: float = 0.0
    _blend: blend.Blend | None = None

    def blend(self) -> blend.Blend:
        if self._blend is None:
            started = time.perf_counter()
            self._blend = blend.fit(self.past)
            self.blend_s = time.perf_counter() - started
        return self._blend


# --- one function a baseline: what it recommends, and the seconds of fitting that are not in the call ----------------

Fitted = tuple[Recommend, float]


def _popularity(fits: Fits) -> Fitted:
    return same_for_all(popularity.fit(fits.met), fits.met), 0.0


def _recency(half_life_d: float) -> Callable[[Fits], Fitted]:
    return lambda fits: (same_for_all(fits.past.popularity(half_life_d), fits.met), 0.0)


def _item_knn(fits: Fits) -> Fitted:
    similar = item_knn.fit(fits.met)
    return lambda users: best((fits.met[users] @ similar).toarray(), fits.met[users]), 0.0


def _ease(fits: Fits) -> Fitted:
    weights = ease.fit(fits.met)
    return lambda users: best(ease.score(fits.met[users], weights), fits.met[users]), 0.0


def _ease_decayed(fits: Fits) -> Fitted:
    history = fits.past.history(decayed_ease.ITEM_HALF_LIFE_D)
    shared = fits.past.n_items <= blend.MAX_EASE_ITEMS  # then the blend stands on the very same matrix
    weights = np.asarray(fits.blend().weights) if shared else decayed_ease.fit(fits.past)
    return lambda users: best(ease.score(history[users], weights), fits.met[users]), 0.0


def _blend(fits: Fits) -> Fitted:
    earlier = fits.blend_s
    fitted = fits.blend()
    return lambda users: best(fitted.scores(users), fits.met[users]), earlier


def _two_stage(fits: Fits) -> Fitted:
    if not fits.config.boosted:
        raise NotRun("switched off (`boosted` of the ladder's configuration)")
    earlier = fits.blend_s
    events = len(fits.past.positives)
    at_most = int(min(fits.config.max_rows, max(fits.config.rows_per_event * events, two_stage.MIN_ROWS)))
    fitted = two_stage.fit(fits.past, first=fits.blend(), seed=fits.seed, max_rows=at_most, progress=fits.progress)
    return fitted.recommend, earlier


@dataclass(frozen=True, slots=True)
class Baseline:
    """wide: it scores every item for every user, one by one."""

    family: Family
    fit: Callable[[Fits], Fitted]
    wide: bool = True


BASELINES: Mapping[str, Baseline] = {
    "popularity": Baseline("heuristic", _popularity, wide=False),
    "recency_popularity_14d": Baseline("heuristic", _recency(14.0), wide=False),
    "recency_popularity_3d": Baseline("heuristic", _recency(3.0), wide=False),
    "item_knn": Baseline("linear", _item_knn),
    "ease": Baseline("linear", _ease),
    "ease_decayed": Baseline("linear", _ease_decayed),
    "blend": Baseline("linear", _blend),
    "two_stage": Baseline("boosted trees", _two_stage),
}


# --- running them -----------------------------------------------------------------------------------------------------


def run_baselines(
    log: Log,
    catalogue: Catalogue,
    test: TestSet,
    slices: Mapping[str, NDArray[np.bool_]],
    *,
    config: LadderConfig | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> list[Entry]:
    """Each of `BASELINES` with figures, or the reason why there are none, and its cost."""
    past = Past(log.positives(), catalogue.price, catalogue.category, catalogue.creator)
    fits = Fits(past, past.history(), config or LadderConfig(), seed, progress)
    entries = []
    for number, (name, baseline) in enumerate(BASELINES.items()):
        progress("baselines", number, len(BASELINES))
        entries.append(_run(name, baseline, fits, test, slices))
    progress("baselines", len(BASELINES), len(BASELINES))
    return entries


def _run(name: str, baseline: Baseline, fits: Fits, test: TestSet, slices: Mapping[str, NDArray[np.bool_]]) -> Entry:
    n_items = fits.past.n_items
    try:
        if baseline.wide and len(test) * n_items > MAX_CELLS:
            raise NotRun(f"{len(test):,} test users × {n_items:,} items: scored one by one up to {MAX_CELLS:,}")
        started = time.perf_counter()
        recommend, earlier = baseline.fit(fits)
        train_s = time.perf_counter() - started + earlier
    except (NotRun, two_stage.TooLittle, ease.TooManyItems) as reason:
        return Entry(baseline.family, Scores(name, {}, not_run=str(reason)))
    size = max(1, CHUNK_CELLS // max(n_items, 1))
    chunks = [recommend(test.users[at : at + size]) for at in range(0, len(test), size)]
    lists = np.concatenate(chunks) if chunks else np.empty((0, PLACES), np.int64)
    figures = score(name, Lists(lists, lists), test, slices)
    return Entry(baseline.family, figures, Cost(round(train_s, 2), serve_us(recommend, test.users)))


def serve_us(recommend: Callable[[NDArray[np.int64]], object], users: NDArray[np.int64]) -> float | None:
    """CPU microseconds of one user's list, asked alone on one thread: the middle of a few. None without users."""
    spent = []
    with threadpool_limits(1):
        for user in users[:TIMED_REQUESTS]:
            started = time.thread_time()
            recommend(np.array([user]))
            spent.append(time.thread_time() - started)
    return round(float(np.median(spent)) * 1e6, 1) if spent else None


def same_for_all(order_by: NDArray[np.float64], met: csr_matrix) -> Recommend:
    """One order for everybody, minus what each met."""
    order = np.argsort(-order_by, kind="stable")

    def recommend(users: NDArray[np.int64]) -> NDArray[np.int64]:
        lists = []
        for user in users:
            mine = met.indices[met.indptr[user] : met.indptr[user + 1]]
            head = order[: PLACES + len(mine)]
            lists.append(head[~np.isin(head, mine)])
        return pad(lists, PLACES)

    return recommend
