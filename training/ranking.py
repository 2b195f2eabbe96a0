"""How the rankers learn: at moments before the cut, the funnel's own candidates, labelled by what came next.

At each moment M the retrieval models are fitted on what was before M, users are as they were at M, and the positives
are the new items of [M, next moment). So a row never sees its own future, and the ranker meets candidates of a
retrieval that has not seen the answer, as it will when it serves.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from bentos.recommender.assemble import load_models
from bentos.recommender.funnel import Funnel
from contracts.dataset import DatasetConfig
from contracts.errors import DataError
from contracts.framing import Costs, Framing
from contracts.serving import Ranker, RankerChoice
from features.inputs import withheld
from features.offline.states import user_states_as_of
from features.ranking import RowSchema, row_schema
from registry.artifacts import Bundle
from training import parallel
from training.calibration import Choice, choose
from training.evaluate import met_items, ranking_rows
from training.evaluation.protocol import TestSet
from training.gathered import Gathered
from training.holdout import read_window, test_set, time_of_share, user_words
from training.importance import permutation_importance
from training.interactions import DAY_US, Log, read_items, read_log
from training.models.dcn_v2 import DcnConfig, DcnV2, RankingRows, fit_dcn
from training.models.ensemble import of_both
from training.models.fitted import Fitted, Pick, of_dcn, of_logistic, of_trees, pick
from training.models.logistic import Logistic, fit_logistic
from training.models.stepped import stepped
from training.models.trees import Trees, TreesConfig, fit_trees
from training.progress import Progress, silent
from training.reference import CANDIDATE_ROWS
from training.worth import worth

CONTEXT_COLUMNS = ("country", "device")
SAMPLED_USERS = 64
NO_HORIZON_US = 1 << 62
STUDIED_USERS = 400  # whose rows the leakage checks look at

# (until_us, folder) → retrieval bundle fitted on events before until_us
Fit = Callable[[int, Path], Bundle]


class RankingConfig(BaseModel):
    """moments: how many; each looks at `window_share` of the rows before the cut, one window before the other, and no
    further than `horizon_d` days."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    moments: int = Field(8, ge=1, le=12)
    window_share: float = Field(0.05, gt=0, lt=0.5)
    horizon_d: float | None = Field(None, gt=0)
    max_users: int = Field(3000, ge=1, description="users to learn from at each moment")
    held_out_share: float = Field(0.15, gt=0, lt=1, description="users kept for stopping and calibration")
    ranker: RankerChoice = Field(
        "best", description="which one serves; best: the simplest within 1 % of the best at the newest third of moments"
    )

    @property
    def horizon_us(self) -> int:
        return NO_HORIZON_US if self.horizon_d is None else int(self.horizon_d * DAY_US)


@dataclass(frozen=True, slots=True)
class Rankers:
    """sample: float32 [R, F], rows of some of the users that were learned from, to calibrate and check a graph on."""

    schema: RowSchema
    ranker: Fitted  # the one that serves
    pick: Pick
    logistic: Logistic
    sample: NDArray[np.float32]
    figures: Mapping[str, float]
    warnings: tuple[str, ...]
    importance: Mapping[str, float]  # column → AUC that the ranker loses without it; empty: not known
    candidates: tuple[
        pa.Table, ...
    ]  # some of the rows that were learned from, scored, as features/frame.py shapes them
    studied: RankingRows  # of some users, whole, to look for leaks in
    learned_users: frozenset[str]
    held_out_users: frozenset[str]
    calibration: Choice  # how the one that serves is calibrated, by the held-out users, and what that is worth

    @property
    def reads(self) -> dict[str, bool]:
        """Column → whether the ranker reads it: what was constant when it learned is taken out of it."""
        return dict(zip(self.schema.names, self.ranker.reads.tolist(), strict=True))


def collect(
    folder: Path,
    config: DatasetConfig,
    moment_us: int,
    to_us: int,
    fit: Fit,
    *,
    seed: int,
    max_users: int,
    gains: Mapping[str, float] | None = None,
    gather: int = 0,
    progress: Progress = silent,
) -> tuple[RankingRows, Gathered]:
    """Labelled rows of one moment; and up to `gather` of them by name. gains: what a wish is worth, by event.

    Raises:
        DataError: nothing to fit the retrieval models on before the moment.
    """
    with tempfile.TemporaryDirectory(prefix="streamrec-moment-") as temporary:
        bundle = fit(moment_us, Path(temporary) / "retrieval")
        models = load_models({"retrieval": bundle.folder, "ranking": None, "fallback": None}, threads=1)
        funnel = Funnel(models, None)
        log = read_log(folder, config, read_items(folder, moment_us), moment_us)
        window = read_window(folder, config, models.catalogue, log, moment_us, to_us)
        test = test_set(log, window, len(models.catalogue)).sample(max_users, seed)
        ids = [log.user_ids[user] for user in test.users]
        states = user_states_as_of(folder, ids, moment_us)
        met = met_items(log, len(models.catalogue))
        words = user_words(folder, config, log, test.users)
        gathered = Gathered("candidate", moment_us, models.catalogue, ids, words, gather, np.random.default_rng(seed))
        rows = ranking_rows(
            funnel,
            states,
            test,
            log.user_ids,
            met,
            moment_us,
            contexts=_contexts(log, test, seed),
            worth=worth(window, config, gains or {}, met.shape),
            gathered=gathered if gather else None,
            progress=progress,
        )
        return rows, gathered


def _contexts(log: Log, test: TestSet, seed: int) -> dict[str, dict[str, str]]:
    """Every other user comes with a context, as requests do: a ranker that always saw one would lean on it."""
    given = np.random.default_rng(seed).random(len(test)) < 0.5
    contexts: dict[str, dict[str, str]] = {}
    for user, with_context in zip(test.users, given, strict=True):
        if with_context:
            contexts[log.user_ids[user]] = {
                name: log.attribute_values[name][log.attributes[user, log.attribute_columns.index(name)]]
                for name in CONTEXT_COLUMNS
                if name in log.attribute_columns
            }
    return contexts


def moments(folder: Path, until_us: int, ranking: RankingConfig) -> list[int]:
    """The moments to learn at, latest first: each a window before the one after it, or before `until_us`."""
    found: list[int] = []
    for number in range(ranking.moments):
        moment_us = time_of_share(folder, ranking.window_share * (number + 1), until_us)
        if moment_us >= (found[-1] if found else until_us):
            break
        found.append(moment_us)
    return found


def fit_rankers(
    folder: Path,
    config: DatasetConfig,
    until_us: int,
    fit: Fit,
    *,
    seed: int,
    ranking: RankingConfig | None = None,
    dcn: DcnConfig | None = None,
    trees: TreesConfig | None = None,
    framing: Framing | None = None,
    progress: Progress = silent,
) -> Rankers:
    """Logistic, boosted trees and DCN-V2 on the same rows, from moments before `until_us`, and which of them serves.
    Too little to learn from is a warning, not an error."""
    ranking = ranking or RankingConfig()
    framing = framing or Framing()
    schema = row_schema()
    parts: list[RankingRows] = []
    warnings: list[str] = []
    kept: list[Gathered] = []
    to_us = until_us
    for number, moment_us in enumerate(moments(folder, until_us, ranking)):
        try:
            part, gathered = collect(
                folder,
                config,
                moment_us,
                min(to_us, moment_us + ranking.horizon_us),
                fit,
                seed=seed + number,
                max_users=ranking.max_users,
                gains=framing.ranking.gains,
                gather=CANDIDATE_ROWS // ranking.moments,
                progress=progress,
            )
        except DataError as error:
            warnings.append(f"the ranker has one moment less to learn from: {error.message}")
            break
        if part.n_users:
            parts.append(part)
            kept.append(gathered)
        to_us = moment_us
    hidden = withheld(framing.ranking.features)
    fits = _Fits(schema, seed, framing.ranking.costs, trees, dcn, progress)
    why = None
    if ranking.ranker == "best" and len(parts) > 1:
        why = across_time(parts, fits, hidden, ranking.held_out_share, seed)
    if not parts:
        warnings.append("no user has a new item before the cut: the ranker keeps the order of retrieval")
        parts.append(
            RankingRows(np.zeros((1, len(schema.columns)), np.float32), np.zeros(1, np.int8), np.array([0, 1]))
        )
    held_out, train, order = hold_out_people(parts, ranking.held_out_share, seed)
    sizes = {
        "ranker_rows": float(sum(len(part.labels) for part in parts)),
        "ranker_users": float(sum(part.n_users for part in parts)),
        "ranker_positives": float(sum(part.labels.sum() for part in parts)),
    }
    sample = RankingRows.join(parts, np.sort(order[:SAMPLED_USERS])).without(schema, hidden).rows
    studied = RankingRows.join(parts, np.sort(order[:STUDIED_USERS])).without(schema, hidden)
    parts.clear()  # a gigabyte in all at half a million events
    if train.labels.sum() < 50:
        warnings.append(f"the ranker learns from {int(train.labels.sum())} positive candidates only")
    light = fit_logistic(
        schema,
        *(rows.without(schema, withheld(framing.fallback.features)) for rows in (train, held_out)),
        seed=seed,
        costs=framing.fallback.costs,
    )
    train, held_out = (rows.without(schema, hidden) for rows in (train, held_out))
    if why is not None:
        (*_, chosen) = fits(train, held_out, why.name)
    elif ranking.ranker == "best":
        every = fits(train, held_out)
        met = "held out at the only moment: who knows its items by name looks better than he is"
        why = pick(every, [held_out], met)
        chosen = next(one for one in every if one.name == why.name)
    else:
        (*_, chosen) = fits(train, held_out, ranking.ranker)
        why = pick([chosen], [held_out], "asked for")
    calibration = choose(chosen.logits(held_out.rows), held_out.labels, held_out.people, seed=seed)
    if calibration.steps is not None:
        chosen = stepped(chosen, calibration.steps)
    importance = permutation_importance(chosen.predict, held_out if held_out.labels.any() else train, schema, seed=seed)
    tables = [gathered.table(chosen.predict) for gathered in kept]
    candidates = tuple(table for table in tables if table is not None)
    return Rankers(
        schema,
        chosen,
        why,
        light,
        sample,
        {**sizes, **why.figures},
        tuple(warnings),
        importance,
        candidates,
        studied,
        frozenset(train.user_ids),
        frozenset(held_out.user_ids),
        calibration,
    )


def newest(moments: int) -> int:
    """At how many of so many moments, the latest ones, it is judged who serves: a third of them, at least one."""
    return max(round(moments / 3), 1)


def across_time(parts: Sequence[RankingRows], fits: "_Fits", hidden: Sequence[str], share: float, seed: int) -> Pick:
    """Who orders best the users of the newest moments, of those that learned at the moments before them.

    parts: of each moment, the latest first; two at least. hidden: columns that may not be read. share: of the people,
    kept for stopping and calibration.
    """
    new = newest(len(parts))
    held_out, train, _ = hold_out_people(parts[new:], share, seed)
    schema = fits.schema
    fitted = fits(train.without(schema, hidden), held_out.without(schema, hidden))
    del train, held_out
    which = "last moment" if new == 1 else f"last {new} moments"
    judged = [part.without(schema, hidden) for part in parts[:new]]
    return pick(fitted, judged, f"at the {which}, learned at the {len(parts) - new} before")


@dataclass(frozen=True, slots=True)
class _Fits:
    """The rankers on given rows, from simple to complex."""

    schema: RowSchema
    seed: int
    costs: Costs
    trees: TreesConfig | None
    dcn: DcnConfig | None
    progress: Progress

    def __call__(self, train: RankingRows, held_out: RankingRows, only: Ranker | None = None) -> list[Fitted]:
        """only: fit that one, and what it is made of, which stands before it."""
        fitted = []
        if only in (None, "linear"):
            light = fit_logistic(self.schema, train, held_out, seed=self.seed, costs=self.costs)
            fitted.append(of_logistic(light, self.schema))
        if only == "trees":
            fitted.append(of_trees(self._trees(train, held_out)))
        if only == "dcn":
            fitted.append(of_dcn(self._network(train, held_out)))
        if only in (None, "ensemble"):
            boosted, network = self._both(train, held_out)
            fitted += [of_trees(boosted), of_dcn(network), of_both(boosted, network, held_out)]
        return fitted

    def _trees(self, train: RankingRows, held_out: RankingRows, unwanted: Event | None = None) -> Trees:
        return fit_trees(
            self.schema,
            train,
            held_out,
            seed=self.seed,
            config=self.trees,
            costs=self.costs,
            unwanted=unwanted,
            progress=self.progress,
        )

    def _network(self, train: RankingRows, held_out: RankingRows) -> DcnV2:
        shown = {"progress": self.progress}
        return parallel.together(
            fit_dcn, self.schema, train, held_out, seed=self.seed, config=self.dcn, costs=self.costs, shown=shown
        )

    def _both(self, train: RankingRows, held_out: RankingRows) -> tuple[Trees, DcnV2]:
        """Side by side: the network has one thread, and the trees are done within theirs whatever else runs."""
        unwanted = Event()
        with ThreadPoolExecutor(1, "trees") as beside:
            boosted = beside.submit(self._trees, train, held_out, unwanted)
            try:
                network = self._network(train, held_out)
                return boosted.result(), network
            except BaseException:  # an interrupt too: nobody waits for trees that are not wanted any more
                unwanted.set()
                raise


def hold_out_people(
    parts: Sequence[RankingRows], share: float, seed: int
) -> tuple[RankingRows, RankingRows, NDArray[np.int64]]:
    """(held out, learned from, all users in the order of the draw, by position in all parts). Who is held out is so at
    every moment: rows of one person a week earlier would tell of those that rankers are stopped and calibrated on."""
    names = [name for part in parts for name in part.user_ids]
    n_users = sum(part.n_users for part in parts)
    if len(names) < n_users:
        names = [str(at) for at in range(n_users)]
    distinct, person = np.unique(np.array(names, dtype=np.str_), return_inverse=True)
    place = np.random.default_rng(seed).permutation(len(distinct))
    order = np.argsort(place[person], kind="stable")
    apart = place[person] < round(len(distinct) * share)
    return RankingRows.join(parts, np.flatnonzero(apart)), RankingRows.join(parts, np.flatnonzero(~apart)), order
