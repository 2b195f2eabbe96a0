"""What the exported files take to answer one request, on one thread, with the code that serves.

R candidates, F columns of a row. Asked with users that the retrieval bundle knows, each with a session of ten items.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from bentos.recommender.assemble import load_models
from bentos.recommender.funnel import Funnel
from bentos.recommender.models import Models, RowScorer
from bentos.recommender.types import Query
from contracts.budgets import Budgets
from contracts.checklist import CHECK
from contracts.evidence import Check, Verdict
from contracts.ids import IdIndex
from contracts.serving import HISTORY_LENGTH
from features.online.base import Interaction, UserState
from registry.artifacts import KINDS, Bundle, Kind

CANDIDATES = 500
USERS = 25
ROUNDS, CALLS = 3, 100
WHAT: Mapping[Kind, str] = {"retrieval": "all sources and their union", "ranking": "ranker", "fallback": "light ranker"}
HOUR_US = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of a call by the clock; cpu_p99_ms: of this thread's CPU. Of the quietest of the rounds."""

    calls: int
    p50_ms: float
    p99_ms: float
    cpu_p99_ms: float


def latency_checks(
    bundles: Mapping[Kind, Bundle], budgets_ms: Mapping[Kind, float], serving: Budgets | None = None
) -> dict[Kind, Check]:
    """`latency` of each model: p99 of the CPU time of one request against its budget.

    budgets_ms: what the framing allows. serving: what serving gives retrieval and ranking; the smaller of the two is
    the budget, since a model that is slower than serving waits answers nobody.

    A training runs beside other work, so the clock's p99 is the machine's as much as the model's; under load and by the
    clock a candidate is judged by its shadow and canary steps. A median by the clock that is over the budget although
    the CPU is not means that the model waits for something: `inconclusive`.
    """
    calls, problems = _calls({kind: bundle.folder for kind, bundle in bundles.items()})
    # The light ranker has no budget of its own in serving.
    served: dict[Kind, float] = {}
    if serving is not None:
        served = {"retrieval": serving.retrieval_ms, "ranking": serving.ranking_ms}
    return {
        kind: judged(kind, measure(calls[kind]), budgets_ms[kind], served.get(kind, math.inf))
        if kind in calls
        else _not_measured(kind, problems)
        for kind in KINDS
    }


def measure(call: Callable[[int], object]) -> Latency:
    """call: of the nth user. The first round warms up and counts for nothing."""
    rounds = []
    with threadpool_limits(1):
        for user in range(USERS):
            call(user)
        for _ in range(ROUNDS):
            clock, cpu = np.empty(CALLS), np.empty(CALLS)
            for at in range(CALLS):
                began, spent = time.perf_counter(), time.thread_time()
                call(at % USERS)
                clock[at], cpu[at] = time.perf_counter() - began, time.thread_time() - spent
            rounds.append((np.percentile(cpu, 99), np.percentile(clock, 50), np.percentile(clock, 99)))
    cpu_p99, p50, p99 = (float(value) * 1e3 for value in min(rounds))
    return Latency(ROUNDS * CALLS, p50, p99, cpu_p99)


def judged(kind: Kind, found: Latency, framed_ms: float, served_ms: float = math.inf) -> Check:
    budget_ms = min(framed_ms, served_ms)
    verdict: Verdict = (
        "fail" if found.cpu_p99_ms > budget_ms else "pass" if found.p50_ms <= budget_ms else "inconclusive"
    )
    detail = (
        f"{WHAT[kind]}, {CANDIDATES} candidates, 1 thread: p99 {found.cpu_p99_ms:.2f} ms of CPU, budget {budget_ms:g}; "
        f"by the clock p50 {found.p50_ms:.2f} ms, p99 {found.p99_ms:.2f} ms; {found.calls} calls"
    )
    if served_ms < framed_ms:
        detail += f"; serving gives no more than that, the framing would allow {framed_ms:g}"
    if verdict == "inconclusive":
        detail += "; it waits for something, or the machine is busy"
    figures = {"p50_ms": found.p50_ms, "p99_ms": found.p99_ms, "cpu_p99_ms": found.cpu_p99_ms, "budget_ms": budget_ms}
    return Check(name="latency", verdict=verdict, detail=detail, figures=figures, command=CHECK)


def _not_measured(kind: Kind, problems: Mapping[str, str]) -> Check:
    why = "; ".join(f"{part}: {problem}" for part, problem in problems.items()) or "there is nothing to ask"
    return Check(name="latency", verdict="inconclusive", detail=f"{WHAT[kind]} was not measured: {why}", command=CHECK)


def _calls(folders: Mapping[Kind, Path]) -> tuple[dict[Kind, Callable[[int], object]], Mapping[str, str]]:
    """kind → what to time, of the kinds that can be asked; and why others cannot."""
    models = load_models(folders, threads=1)
    if models.retrieval is None or not len(models.catalogue):
        return {}, models.problems
    funnel = Funnel(models, None)
    asked = _users(models, models.retrieval.users)
    calls: dict[Kind, Callable[[int], object]] = {
        "retrieval": lambda user: funnel.candidates(*asked[user % len(asked)]),
    }
    rows = [_rows(funnel, query, state) for query, state in asked]
    rows = [each for each in rows if len(each)]
    if rows and models.ranker is not None:
        calls["ranking"] = _scoring(models.ranker, rows)
    if rows and models.light is not None:
        calls["fallback"] = _scoring(models.light, rows)
    return calls, models.problems


def _scoring(scorer: RowScorer, rows: Sequence[NDArray[np.float32]]) -> Callable[[int], object]:
    return lambda user: scorer.score(rows[user % len(rows)])


def _users(models: Models, people: IdIndex) -> list[tuple[Query, UserState]]:
    """Drawn evenly over the index, the last one unknown; each has just met ten items."""
    now_us, n = models.now_us(), len(models.catalogue)
    known = np.unique(np.linspace(0, len(people) - 1, min(USERS - 1, len(people))).astype(np.int64))
    names = [*(people.ids_of(known) if len(people) else []), "streamrec-nobody"]
    random = np.random.default_rng(0)
    asked = []
    for name in names:
        met = models.catalogue.item_ids
        last = tuple(
            Interaction(met[item], "click", now_us - (place + 1) * HOUR_US)
            for place, item in enumerate(random.integers(0, n, HISTORY_LENGTH).tolist())
        )
        asked.append((Query("latency", name, 20, now_us, math.inf), UserState(name, last=last)))
    return asked


def _rows(funnel: Funnel, query: Query, state: UserState) -> NDArray[np.float32]:
    """float32 [R, F] of one user; a small catalogue's are repeated."""
    user, candidates = funnel.candidates(query, state)
    rows = funnel.rows(query, user, candidates)
    return np.resize(rows, (CANDIDATES, rows.shape[1])) if len(rows) else rows
