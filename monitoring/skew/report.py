"""Skew of a window as one verdict, with everything that led to it; and as signals for the watch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from monitoring.signals import Signal, Verdict
from monitoring.skew.limits import Limits
from monitoring.skew.rows import RowsCompared, RowSkew
from monitoring.skew.statistics import FeatureSkew

WHOLE = "skew.whole"  # the signal of the verdict over all


@dataclass(frozen=True, slots=True)
class SkewReport:
    """model: of the ranker (`streamrec-ranking/3`), empty where it is not known. why: of the verdict, one sentence.
    rows: the row-by-row comparison, None where it was not asked for. problems: what the verdict was made without."""

    verdict: Verdict
    why: str
    model: str
    since_us: int | None
    until_us: int | None
    at_us: int
    answers: int
    n: int
    users: int
    limits: Limits
    features: tuple[FeatureSkew, ...] = ()
    rows: RowsCompared | None = None
    problems: tuple[str, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "verdict": self.verdict,
            "why": self.why,
            "model": self.model,
            "since_us": self.since_us,
            "until_us": self.until_us,
            "answers": self.answers,
            "n": self.n,
            "users": self.users,
            "limits": asdict(self.limits),
            "features": {
                f.feature: {
                    "verdict": f.verdict,
                    "why": f.why,
                    "n": f.n,
                    "users": f.users,
                    "reads": f.reads,
                    "importance": f.importance,
                    "measures": {
                        m.name: {"value": m.value, "error": m.error, "limit": m.limit, "verdict": m.verdict}
                        for m in f.measures
                    },
                }
                for f in self.features
            },
            "rows": None if self.rows is None else self.rows.document(),
            "problems": list(self.problems),
        }

    def signals(self) -> list[Signal]:
        """One for each feature and way of looking; and `skew.whole`, which a gate asks for: a single feature of which
        nothing is known leaves it open only where the ranker hangs on it."""
        made = [_statistics_signal(f, self.model, self.at_us) for f in self.features if f.reads]
        if self.rows is not None:
            made += [_rows_signal(one, self.model, self.at_us, self.limits) for one in self.rows.features]
        broken = float(sum(signal.verdict == "breach" for signal in made))
        return [*made, Signal(WHOLE, self.model, self.verdict, self.at_us, broken, 0.0, cause=self.why)]


def judged(features: Sequence[FeatureSkew], rows: RowsCompared | None) -> tuple[Verdict, str]:
    """The verdict over all, and why.

    A breach of any feature that the ranker reads is one. Where none breaches, a feature that its AUC hangs on and that
    could not be judged leaves the whole open; so does having judged nothing.
    """
    read = [f for f in features if f.reads]
    broken = [f.feature for f in read if f.verdict == "breach"]
    wrong = [one.feature for one in rows.features if one.verdict == "breach"] if rows else []
    if broken or wrong:
        parts = [f"statistics of {', '.join(broken)}"] if broken else []
        parts += [f"rows of {', '.join(wrong)}"] if wrong else []
        return "breach", "; ".join(parts)
    if not any(f.verdict == "ok" for f in read):
        return "inconclusive", read[0].why if read else "no feature could be compared"
    open_ = [f for f in read if f.verdict == "inconclusive" and (f.importance is None or f.importance > 0)]
    if open_:
        return "inconclusive", f"not known of {', '.join(f.feature for f in open_)}: {open_[0].why}"
    if rows is not None and rows.verdict == "inconclusive":
        return "inconclusive", rows.why
    return "ok", ""


def _statistics_signal(skew: FeatureSkew, model: str, at_us: int) -> Signal:
    worst = max(skew.measures, key=lambda m: (m.verdict == "breach", m.verdict == "inconclusive"), default=None)
    return Signal(
        f"skew.statistics.{skew.feature}",
        model,
        skew.verdict,
        at_us,
        value=worst.value if worst else None,
        threshold=worst.limit if worst else None,
        cause=skew.why,
        details={
            "n": skew.n,
            "users": skew.users,
            "importance": skew.importance,
            **{m.name: m.value for m in skew.measures},
        },
    )


def _rows_signal(skew: RowSkew, model: str, at_us: int, limits: Limits) -> Signal:
    return Signal(
        f"skew.rows.{skew.feature}",
        model,
        skew.verdict,
        at_us,
        value=skew.share,
        threshold=limits.rows,
        cause=skew.why,
        details={"n": skew.compared, "different": skew.different, "kind": skew.kind, "rows": list(skew.examples)[:5]},
    )
