"""Takes away one part of the funnel at a time and asks the same people again. The models stay as they were fitted.

A source: the others' candidates are merged anew, as if it had been switched off, and ranked and re-ranked by the same.
A group of columns: its values come from candidates of somebody else, drawn at random, all columns of the group of one
row together (Breiman's permutation, by group); so the ranker reads something likely that tells nothing of this user
and item. A ranker that had learned without the group might make up for it: that would be another training. Its cost is
what making rows without its inputs spares, where it has inputs of its own.
A rule: the same order by score, re-ranked under a rules document without the rule. Policy (`flagged`, `seen`) stays.

U users, K candidates, F columns.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from bentos.recommender import compose
from bentos.recommender.funnel import NO_RULES, Funnel
from bentos.recommender.inflight import InFlight
from bentos.recommender.rerank.base import Reranker
from bentos.recommender.rerank.window import HOUR_US, under_exposed
from bentos.recommender.types import Candidates, User
from contracts.rules import RulesDocument
from features.online.base import UserState
from features.ranking import row_schema, rows
from training.ablation.groups import COSTED, NOTHING_OF_ITS_OWN, feature_groups, read_by
from training.ablation.result import Ablated, AblationConfig, Ablations, Kind
from training.evaluate import SLATE, ask
from training.evaluation import metrics
from training.evaluation.metrics import Estimate, Targets, pad
from training.evaluation.protocol import TestSet
from training.evaluation.report import CANDIDATES, K
from training.progress import Progress, silent

UNKNOWN = Estimate(float("nan"), float("nan"), 0)
POLICY = ("version", "suppress_seen")  # of `NO_RULES`: said there, and no rules on composition


@dataclass(slots=True)
class _Asked:
    """One user, asked once with everything. ranked: by score, before the rules."""

    flight: InFlight
    user: User
    state: UserState
    candidates: Candidates
    ranked: Candidates | None


@dataclass(slots=True)
class _Answers:
    """Of one variant. slates, unions: catalogue rows, a list a user; us: CPU time of a request, or what of it the part
    takes."""

    slates: list[NDArray[np.int64]] = field(default_factory=list)
    unions: list[NDArray[np.int64]] = field(default_factory=list)
    us: list[float] = field(default_factory=list)


def ablate(
    funnel: Funnel,
    states: Mapping[str, UserState],
    test: TestSet,
    user_ids: Sequence[str],
    met: csr_matrix,
    now_us: int,
    *,
    config: AblationConfig,
    seed: int,
    progress: Progress = silent,
) -> Ablations | None:
    """Every source, group of columns and rule that this funnel has, on users drawn by `seed`; None without any.

    The arguments as for `run_funnel`.
    """
    started = time.perf_counter()
    random = np.random.default_rng(seed)
    chosen = np.sort(random.permutation(len(test))[: config.users])
    if not len(chosen):
        return None
    wanted = test.targets.take(chosen)
    rules = rules_off(funnel.rules)
    sources = tuple(funnel.stages.retrieval.sources)
    whole = _Answers()
    by_source = {name: _Answers() for name in sources}
    by_rule = {name: _Answers() for name in rules}
    rerankers = {name: compose.rerankers(funnel.models, document) for name, document in rules.items()}
    as_served = compose.rerankers(funnel.models, funnel.rules)
    kept: list[_Asked] = []
    rows_us: list[float] = []
    shared_us: list[float] = []
    group_us: dict[str, list[float]] = {name: [] for name in COSTED}
    for number, position in enumerate(chosen.tolist()):
        row = int(test.users[position])
        user_id = user_ids[row]
        query = ask(user_id, now_us, met.indices[met.indptr[row] : met.indptr[row + 1]])
        flight = InFlight(query, state=states.get(user_id) or UserState(user_id))
        asked = _whole(funnel, flight, whole)
        kept.append(asked)
        blocked = funnel.stages.retrieval.blocked(query, asked.user)
        for name in sources:
            _without_source(funnel, asked, name, by_source[name])
            began = time.thread_time()
            funnel.stages.retrieval.retrieve((name,), query, asked.user, blocked=blocked)
            by_source[name].us.append(_us(began))
        if asked.ranked is not None:
            made_of = funnel.stages.row_inputs(query, asked.user, asked.candidates)
            rows_us.append(_rows_us(made_of))
            shared_us.append(_rows_us({**made_of, **NOTHING_OF_ITS_OWN}))
            for name, (having, lacking) in COSTED.items():
                group_us[name].append(_rows_us({**made_of, **having}) - _rows_us({**made_of, **lacking}))
            served_us = _rerank(funnel, asked, as_served, None)
            for name in rules:
                by_rule[name].us.append(served_us - _rerank(funnel, asked, rerankers[name], by_rule[name]))
        else:
            for name in rules:
                by_rule[name].slates.append(whole.slates[-1])
        progress("ablation of sources and rules", number + 1, len(chosen))
    by_group, why = _groups(funnel, kept, whole, random, progress)
    judge = _Judge(funnel, wanted, whole, now_us)
    schema = row_schema()
    columns = feature_groups(schema)
    parts = [
        *(judge.part("source", name, found, _middle(found.us)) for name, found in by_source.items()),
        *(
            replace(
                judge.part("features", name, by_group[name], _middle(group_us.get(name, ()))),
                columns=len(at),
                inputs=read_by(schema, at),
                why=why[name],
            )
            for name, at in columns.items()
        ),
        *(judge.part("rule", name, found, _middle(found.us)) for name, found in by_rule.items()),
    ]
    return Ablations(
        tuple(parts),
        judge.whole,
        judge.recall,
        judge.shown(whole),
        _middle(whole.us),
        _middle(rows_us),
        _middle(shared_us),
        time.perf_counter() - started,
    )


def rules_off(rules: RulesDocument) -> dict[str, RulesDocument]:
    """Rule → the document without it, for every rule on composition that is in force; last, without any of them."""
    named = [name for name in NO_RULES.model_dump(exclude_unset=True) if name not in POLICY]
    off = {name: getattr(NO_RULES, name) for name in named if getattr(NO_RULES, name) != getattr(rules, name)}
    found = {name: rules.model_copy(update={name: value}) for name, value in off.items()}
    return found | ({"all rules": rules.model_copy(update=off)} if len(off) > 1 else {})


# --- asking ----------------------------------------------------------------------------------------------------------


def _whole(funnel: Funnel, flight: InFlight, answers: _Answers) -> _Asked:
    state = flight.state or UserState(flight.query.user_id)
    began = time.thread_time()
    user = funnel.stages.gather(flight, state)
    candidates = funnel.stages.union(flight, user)
    asked = _Asked(flight, user, state, candidates, None)
    asked.ranked = _answer(funnel, flight, asked, candidates, answers)
    answers.us.append(_us(began))
    return asked


def _answer(
    funnel: Funnel,
    flight: InFlight,
    asked: _Asked,
    candidates: Candidates,
    answers: _Answers,
    rows: NDArray[np.float32] | None = None,
) -> Candidates | None:
    """Rank and re-rank into `answers`; the order before the rules. No candidates: the lists that serving falls to."""
    answers.unions.append(candidates.items[:CANDIDATES].astype(np.int64))
    if not len(candidates):
        slate = funnel.lowest(flight.query, asked.state, "no candidates")
        answers.slates.append(funnel.models.index.lookup_many(slate.item_ids).astype(np.int64))
        return None
    slate, shown = funnel.stages.conclude(flight, asked.user, candidates, rows)
    answers.slates.append(shown.items.astype(np.int64))
    return slate.ranked


def _without_source(funnel: Funnel, asked: _Asked, name: str, answers: _Answers) -> None:
    brought = {source: result for source, result in asked.flight.brought.items() if source != name}
    flight = InFlight(asked.flight.query, state=asked.state, brought=brought)
    _answer(funnel, flight, asked, funnel.stages.union(flight, asked.user), answers)


def _rerank(funnel: Funnel, asked: _Asked, rerankers: Sequence[Reranker], answers: _Answers | None) -> float:
    """CPU time, µs."""
    assert asked.ranked is not None  # noqa: S101
    flight = InFlight(asked.flight.query, state=asked.state)
    began = time.thread_time()
    shown, _ = funnel.stages.rerank(flight, asked.ranked, rerankers)
    took = _us(began)
    if answers is not None:
        answers.slates.append(shown.items.astype(np.int64))
    return took


def _groups(
    funnel: Funnel, kept: Sequence[_Asked], whole: _Answers, random: np.random.Generator, progress: Progress
) -> tuple[dict[str, _Answers], dict[str, str]]:
    """Group → answers, and what is to be said of it. Nobody to take values from: no answers."""
    columns = feature_groups(row_schema())
    answers = {name: _Answers() for name in columns}
    why = dict.fromkeys(columns, "")
    own = [asked.flight.rows for asked in kept]
    some = [at for at, rows in enumerate(own) if rows is not None and len(rows)]
    if len(some) < 2:
        return answers, dict.fromkeys(columns, "nobody to take other values from")
    circle = random.permutation(some)
    donor = dict(zip(circle.tolist(), np.roll(circle, 1).tolist(), strict=True))
    first = own[some[0]]
    for name, at in columns.items():
        if all((own[n][:, at] == first[:1, at]).all() for n in some):  # type: ignore[index]
            why[name] = "the same for all candidates of this evaluation: nothing can be taken away"
    for number, asked in enumerate(kept):
        rows = own[number]
        taken = own[donor[number]] if number in donor else None
        if rows is None or taken is None:
            for found in answers.values():
                found.slates.append(whole.slates[number])
            continue
        others = taken[random.integers(len(taken), size=len(rows))]
        for name, at in columns.items():
            if why[name]:
                continue
            mixed = rows.copy()
            mixed[:, at] = others[:, at]
            flight = InFlight(asked.flight.query, state=asked.state, brought=asked.flight.brought)
            _answer(funnel, flight, asked, asked.candidates, answers[name], mixed)
        progress("ablation of features", number + 1, len(kept))
    return answers, why


def _rows_us(made_of: Mapping[str, Any]) -> float:
    """CPU time of making one request's rows."""
    began = time.thread_time()
    rows(**made_of)
    return _us(began)


def _us(began: float) -> float:
    """CPU time of this thread since `began`: on a busy machine the clock tells of others."""
    return (time.thread_time() - began) * 1e6


def _middle(values: Sequence[float]) -> float:
    return round(float(np.median(values)), 1) if len(values) else float("nan")


# --- judging ---------------------------------------------------------------------------------------------------------


class _Judge:
    """Figures of a variant against those of the whole, user by user."""

    def __init__(self, funnel: Funnel, wanted: Targets, whole: _Answers, now_us: int) -> None:
        self._wanted = wanted
        catalogue, rules = funnel.models.catalogue, funnel.rules
        exposure = None if funnel.models.retrieval is None else funnel.models.retrieval.creator_exposure
        age = now_us - catalogue.published_us
        self._category = catalogue.category
        self._kinds = {
            "young": (age >= 0) & (age < rules.fresh_hours * HOUR_US),
            "under-exposed creators": under_exposed(catalogue, exposure, rules.under_exposed_quantile),
        }
        self._ndcg, self._recall = self._ndcg_of(whole), self._recall_of(whole)
        self.whole, self.recall = Estimate.of(self._ndcg), Estimate.of(self._recall)

    def part(self, kind: Kind, name: str, answers: _Answers, cost_us: float) -> Ablated:
        if not answers.slates:
            return Ablated(kind, name, UNKNOWN, UNKNOWN, UNKNOWN, cost_us)
        ndcg = self._ndcg_of(answers)
        recall = Estimate.of(self._recall_of(answers) - self._recall) if kind == "source" else UNKNOWN
        return Ablated(
            kind, name, Estimate.of(ndcg), Estimate.of(ndcg - self._ndcg), recall, cost_us, shown=self.shown(answers)
        )

    def shown(self, answers: _Answers) -> dict[str, float]:
        """Mean over users, in the first ten: different categories, young items, items of under-exposed creators."""
        first = [slate[slate >= 0][:K] for slate in answers.slates]
        categories = [len(np.unique(self._category[items])) for items in first]
        return {"categories": float(np.mean(categories))} | {
            name: float(np.mean([mask[items].sum() for items in first])) for name, mask in self._kinds.items()
        }

    def _ndcg_of(self, answers: _Answers) -> NDArray[np.float64]:
        lists = pad(answers.slates, SLATE)
        return metrics.ndcg(metrics.hits(lists[:, :K], self._wanted), self._wanted.counts, K)

    def _recall_of(self, answers: _Answers) -> NDArray[np.float64]:
        hit = metrics.hits(pad(answers.unions, CANDIDATES), self._wanted)
        return metrics.recall(hit, self._wanted.counts, CANDIDATES)
