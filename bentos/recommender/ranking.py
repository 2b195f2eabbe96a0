"""The chain of scorers: the first that gives a finite score to every candidate orders them."""

import time
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.breaker import Breaker
from bentos.recommender.rankers.base import Rows, Scorer
from bentos.recommender.types import Candidates
from contracts.serving import RANKERS, UNRANKED, Aim, RankedBy

# What a scorer elsewhere said: its scores, or why it gave none.
Given = Mapping[str, NDArray[np.float32] | str]
NO_BREAKERS: Mapping[str, Breaker] = {}
# Scorers that a request which starts lower does not ask.
NOT_ASKED: Mapping[Aim, frozenset[RankedBy]] = {
    "full": frozenset(),
    "simple_ranking": frozenset(RANKERS),
    "retrieval": frozenset({*RANKERS, "logistic"}),
    **dict.fromkeys(UNRANKED, frozenset({*RANKERS, "logistic"})),
}


def rank(
    scorers: Sequence[Scorer],
    candidates: Candidates,
    rows: Rows,
    *,
    given: Given,
    deadline: float,
    aim: Aim = "full",
    breakers: Mapping[str, Breaker] = NO_BREAKERS,
) -> tuple[Candidates, RankedBy, list[str]]:
    """Candidates with their scores, best first (ties: retrieval score, then item row), who scored, and notes.

    `given`: answers of scorers that ran elsewhere, by name. After `deadline` only the last scorer is tried: it costs
    nothing. breakers: of scorers that run here, by name; one that has failed in a row is left alone for a while.
    """
    notes: list[str] = []
    for scorer in scorers:
        last = scorer is scorers[-1]
        breaker, permit = breakers.get(scorer.name), None
        try:
            if scorer.name in NOT_ASKED[aim]:
                notes.append(f"{scorer.name}: not asked, the aim is {aim}")
                continue
            if scorer.name in given:
                said = given[scorer.name]
                if isinstance(said, str):
                    notes.append(f"{scorer.name}: {said}")
                    continue
                scores = said
            elif not scorer.ready:
                notes.append(f"{scorer.name}: not loaded")
                continue
            elif not last and time.perf_counter() > deadline:
                notes.append(f"{scorer.name}: no time left")
                continue
            elif breaker is not None and (permit := breaker.allow(time.perf_counter())) is None:
                notes.append(f"{scorer.name}: left alone after failures in a row")
                continue
            else:
                scores = scorer.score(candidates, rows)
            problem = _problem(scores, len(candidates))
        except Exception as error:
            problem = repr(error)
        if breaker is not None and permit is not None:
            (breaker.bad if problem else breaker.good)(permit, time.perf_counter())
        if problem:
            notes.append(f"{scorer.name}: {problem}")
            continue
        return _in_order(candidates, scores, _best_first(scores, candidates)), scorer.name, notes
    raise RuntimeError("no scorer gave scores: " + "; ".join(notes))


def _in_order(candidates: Candidates, scores: NDArray[np.float32], order: NDArray[np.intp]) -> Candidates:
    """`dataclasses.replace`, then `take`, in one: half of the time."""
    return Candidates(
        candidates.items.take(order),
        candidates.retrieval.take(order),
        candidates.by_source.take(order, axis=0),
        candidates.brought.take(order, axis=0),
        scores.take(order),
        candidates.vector,
    )


def _best_first(scores: NDArray[np.float32], candidates: Candidates) -> NDArray[np.intp]:
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    if (ordered[1:] == ordered[:-1]).any():  # rare; three keys take three sorts
        order = np.lexsort((candidates.items, -candidates.retrieval, -scores))
    return order


def _problem(scores: NDArray[np.float32], n: int) -> str:
    if scores.shape != (n,):
        return f"scores of shape {scores.shape} for {n} candidates"
    if not np.logical_and.reduce(np.isfinite(scores)):
        return "scores are not finite"
    return ""
