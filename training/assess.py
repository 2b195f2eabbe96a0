"""Figures of three bundles on a window of a data set, by the protocol, with the baselines beside them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bentos.recommender.assemble import load_models
from bentos.recommender.funnel import Funnel
from contracts.dataset import DatasetConfig
from contracts.errors import DataError
from contracts.quality import QualityPolicy
from contracts.rules import RulesDocument
from contracts.serving import Ranker
from features.offline.items import item_features_as_of
from features.offline.states import user_states_as_of
from features.online.base import ItemSnapshot, UserState
from registry.artifacts import Kind
from training.ablation.result import AblationConfig, Ablations
from training.ablation.run import ablate
from training.baselines.fitted import LadderConfig, run_baselines, serve_us
from training.evaluate import ask, met_items, run_funnel
from training.evaluation.alone import Alone, each_alone
from training.evaluation.ladder import Cost, Entry, Family, Ladder, ladder
from training.evaluation.report import RankerScores, Scores, recall_curve, score, score_ranker
from training.gathered import Gathered
from training.holdout import read_window, test_set, user_words
from training.interactions import Items, read_log
from training.progress import Progress, silent
from training.study.cohorts import user_cohorts
from training.study.study import Study, study

MOST_USERS = 10_000  # of a test window that are asked, drawn by the seed
MOST_CELLS = 400_000_000  # users × items, for baselines score all items of each: fewer users of a large catalogue
LEAST_USERS = 1_000  # whatever the catalogue
FAMILY: Mapping[Ranker, Family] = {"linear": "linear", "trees": "boosted trees", "dcn": "deep", "ensemble": "deep"}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of one test window. funnel: with the rules that serve; the others beside it. ladder: the baselines and
    the funnel without rules, which they have none of either. window_users: whom the window has, of whom n_users were
    asked."""

    from_us: int
    to_us: int
    window_users: int
    n_users: int
    n_targets: int
    funnel: Scores
    plain: Scores
    baselines: tuple[Scores, ...]
    ladder: Ladder
    ranker: RankerScores
    recall_by_k: Mapping[str, Mapping[int, float]]
    ms_per_user: float
    study: Study | None = None  # slices of items, fairness, cold start
    alone: tuple[Alone, ...] = ()  # each source without the others
    ablations: Ablations | None = None  # None: not asked for, or nobody to ask
    shown: pa.Table | None = None  # what the ranker read of the slates, with labels, in the shape of features/frame.py

    def metrics(self) -> dict[str, Any]:
        """Flat, for scripts and MLflow: the funnel's figures, without rules, each source's, the ranker's."""
        without = {f"no_rules_{name}": value for name, value in self.plain.plain().items()}
        ranker = {f"ranker_{name}": value for name, value in self.ranker.plain().items()}
        counts = {"test_users": self.n_users, "test_targets": self.n_targets}
        alone = {f"ndcg@10:{one.scores.name}": one.scores.plain()["ndcg@10"] for one in self.alone}
        return self.funnel.plain() | without | ranker | alone | counts

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the figures should know."""
        if self.n_users == self.window_users:
            return ()
        return (f"figures are of {self.n_users:,} of the window's {self.window_users:,} users, drawn by the seed",)

    def tables(self) -> tuple[Scores, ...]:
        return (self.funnel, self.plain, *self.baselines)


def assess(
    folders: Mapping[Kind, Path | None],
    folder: Path,
    config: DatasetConfig,
    from_us: int,
    to_us: int,
    rules: RulesDocument,
    *,
    gather: int = 0,
    seed: int = 0,
    steps: LadderConfig | None = None,
    train_s: float | None = None,
    ablation: AblationConfig | None = None,
    quality: QualityPolicy | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Ask the funnel that serves, at `from_us`, for every user of the protocol; fit the baselines on the rows before.

    Of a large window a sample of users, drawn by `seed`. Users and items are as they were at `from_us`, whenever the
    bundles were trained. gather: keep what the ranker read of up to so many of the items that were shown, of users
    drawn by `seed`. steps: of the ladder. train_s: what the bundles took to make, where that is known. ablation: also
    take the parts of the funnel away, one at a time. quality: how many users a group has to have.

    Raises:
        DataError: no positive event before `from_us`, or the bundles have no catalogue.
    """
    models = load_models(folders, threads=1)
    catalogue = models.catalogue
    if not len(catalogue):
        raise DataError(f"the bundles have no catalogue: {models.problems}", next_command="streamrec models verify")
    log = read_log(folder, config, Items(catalogue, [""] * len(catalogue), None), from_us)  # type: ignore[arg-type]
    window = read_window(folder, config, catalogue, log, from_us, to_us)
    everybody = test_set(log, window, len(catalogue))
    test = everybody.sample(max(LEAST_USERS, min(MOST_USERS, MOST_CELLS // len(catalogue))), seed)
    slices = user_cohorts(folder, config, log, catalogue, test.users)
    funnel, plain = Funnel(models, rules), Funnel(models, None)
    columns = item_features_as_of(folder, from_us, list(catalogue.item_ids))
    items = ItemSnapshot(f"as-of-{from_us}", catalogue.item_ids, columns, dict.fromkeys(columns, from_us))
    for one in (funnel, plain):
        one.set_items(items)
    states = user_states_as_of(folder, [log.user_ids[user] for user in test.users], from_us)
    met = met_items(log, len(catalogue))
    gathered = None
    if gather:
        ids, words = [log.user_ids[user] for user in test.users], user_words(folder, config, log, test.users)
        random = np.random.default_rng(seed)
        gathered = Gathered("slate", from_us, catalogue, ids, words, gather, random)
    answers = run_funnel(funnel, plain, states, test, log.user_ids, met, from_us, gathered=gathered, progress=progress)
    steps = steps or LadderConfig()
    baselines = run_baselines(log, catalogue, test, slices, config=steps, seed=seed, progress=progress)
    unruled = score("funnel (no rules)", answers.without_rules, test, slices)

    def serve(user: NDArray[np.int64]) -> object:
        user_id = log.user_ids[int(user[0])]
        mine = met.indices[met.indptr[int(user[0])] : met.indptr[int(user[0]) + 1]]
        return plain.run(ask(user_id, from_us, mine), states.get(user_id) or UserState(user_id))

    ours = Entry(
        FAMILY[models.ranked_by], unruled, Cost(round(train_s, 2) if train_s else None, serve_us(serve, test.users))
    )
    return Evaluation(
        from_us=from_us,
        to_us=to_us,
        window_users=len(everybody),
        n_users=len(test),
        n_targets=len(test.targets.items),
        funnel=score("funnel", answers.with_rules, test, slices),
        plain=unruled,
        baselines=tuple(entry.scores for entry in baselines),
        ladder=ladder([*baselines, ours], steps.tolerance),
        ranker=score_ranker(answers.probabilities, answers.labels, answers.row_users),
        recall_by_k={
            "ordered by the ranker": recall_curve(answers.ranked, test),
            "ordered by merged score": recall_curve(answers.merged, test),
            **{
                f"{name} alone": recall_curve(lists, test) for name, lists in (answers.with_rules.sources or {}).items()
            },
        },
        ms_per_user=answers.seconds_per_user * 1e3,
        study=study(
            folder,
            config,
            log,
            window,
            test,
            catalogue,
            slices,
            answers.with_rules,
            funnel,
            seed=seed,
            least_users=(quality or QualityPolicy()).fairness.least_users,
        ),
        alone=each_alone(answers.with_rules.sources or {}, test, [entry.scores for entry in baselines]),
        ablations=ablate(
            funnel, states, test, log.user_ids, met, from_us, config=ablation, seed=seed, progress=progress
        )
        if ablation
        else None,
        shown=gathered.table() if gathered else None,
    )
