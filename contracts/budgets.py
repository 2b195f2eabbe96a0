"""One deadline, shared out to the stages of its critical path.

    began ─ gateway ─ features ─ retrieval ─ ranking ─ re-ranking ─ assembly ─ deadline

Sources run beside one another and beside the read of the features: retrieval counts once.
"""

import math
from dataclasses import dataclass, fields

from contracts.errors import UsageError


@dataclass(frozen=True, slots=True)
class Plan:
    """The budgets of one request. Moments are `time.perf_counter()` seconds, lengths seconds.

    A stage may take its own budget and whatever those before it left, but must end by its moment, so that those after
    it have theirs. read_s: the wait for the features. source_s: for any one source. answer_at: when a computed slate
    must be there, else a lower rung answers in the time of the assembly.
    """

    read_s: float
    source_s: float
    features_until: float
    retrieval_until: float
    ranking_until: float
    answer_at: float
    deadline: float


@dataclass(frozen=True, slots=True)
class Budgets:
    """Milliseconds. gateway: what happens before the first stage, whoever does it."""

    gateway_ms: float = 5.0
    features_ms: float = 15.0
    retrieval_ms: float = 30.0
    ranking_ms: float = 50.0
    reranking_ms: float = 20.0
    assembly_ms: float = 5.0

    @property
    def critical_path_ms(self) -> float:
        return sum(getattr(self, field.name) for field in fields(self))

    def must_fit(self, deadline_ms: float) -> None:
        """
        Raises:
            UsageError: together they are longer than the deadline.
        """
        if self.critical_path_ms <= deadline_ms:
            return
        parts = " + ".join(f"{f.name.removesuffix('_ms')} {getattr(self, f.name):g}" for f in fields(self))
        raise UsageError(
            f"the budgets do not fit: {parts} = {self.critical_path_ms:g} ms, and `deadline_ms` is {deadline_ms:g};"
            " raise `deadline_ms`, or lower `gateway_budget_ms`, `features_budget_ms`, `retrieval_budget_ms`,"
            " `ranking_budget_ms`, `reranking_budget_ms` or `assembly_budget_ms`"
        )

    def plan(self, began: float, deadline: float) -> Plan:
        """For a request that has from `began` to `deadline`. A deadline too short for all of them shortens each alike.

        An infinite one sets no limits: evaluation and warming up wait for everything.
        """
        if math.isinf(deadline):
            return Plan(math.inf, math.inf, *[math.inf] * 5)
        path_s = self.critical_path_ms / 1e3
        whole_s = max(deadline - began, 0.0)
        scale = 1e-3 * (min(1.0, whole_s / path_s) if path_s else 0.0)
        answer_at = deadline - self.assembly_ms * scale
        ranking_until = answer_at - self.reranking_ms * scale
        retrieval_until = ranking_until - self.ranking_ms * scale
        return Plan(
            read_s=self.features_ms * scale,
            source_s=self.retrieval_ms * scale,
            features_until=retrieval_until - self.retrieval_ms * scale,
            retrieval_until=retrieval_until,
            ranking_until=ranking_until,
            answer_at=answer_at,
            deadline=deadline,
        )
