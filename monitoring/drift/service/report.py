"""What the drift run says of one ranker's window: as a document, and as signals."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from monitoring.drift.base import Result
from monitoring.drift.service.judgement import Found, Judgement, whole
from monitoring.drift.service.season import Verdict
from monitoring.drift.service.severity import MODERATE
from monitoring.signals import Signal
from monitoring.signals import Verdict as Says


@dataclass(frozen=True, slots=True)
class DriftReport:
    """judged: None where nothing could be; then `why` says why. rows: shown items; logged: those whose features were
    kept. concept: what was found of clicks, before it was corrected with the rest. problems: what could not be read.
    doubt: why the window is not known to be whole: what drifted did, but `none` cannot be said.
    page: where the report for people lies, once it is written; mlflow: where it lies there as well. samples: the rows
    that were judged, training's and the window's.
    """

    model: str
    bentos: tuple[str, ...]
    since_us: int
    until_us: int
    at_us: int
    rows: int
    logged: int
    judged: Judgement | None
    concept: Mapping[str, Result] = field(default_factory=dict)
    why: str = ""
    season: str = ""
    problems: tuple[str, ...] = ()
    run_id: str = ""
    ranker: str = ""  # as exposures name it
    doubt: str = ""
    page: str = ""
    mlflow: str = ""
    samples: tuple[pa.Table, pa.Table] | None = field(default=None, repr=False, compare=False)

    @property
    def verdict(self) -> Verdict:
        if self.judged is None or (self.doubt and self.judged.verdict != "drift"):
            return "inconclusive"
        return self.judged.verdict

    def document(self) -> dict[str, Any]:
        judged = self.judged
        said: dict[str, Any] = {
            "verdict": self.verdict,
            "why": self.why or self.doubt,
            "model": self.model,
            "bentos": list(self.bentos),
            "window": {"since_us": self.since_us, "until_us": self.until_us},
            "rows": self.rows,
            "logged": self.logged,
            "season": self.season or None,
            "features": {},
            "problems": list(self.problems),
            "page": self.page or None,
            "mlflow": self.mlflow or None,
        }
        if judged is None:
            return said
        return said | {
            "no_season": judged.no_season or None,
            "users": {"reference": judged.rows[0], "current": judged.rows[1]},
            "since_us": judged.since_us,
            "severity": asdict(judged.severity),
            "features": {name: f.document() for name, f in judged.found.items()},
        }

    def signals(self) -> list[Signal]:
        """`drift.window`: whether all of it could be read; `drift.season`: whether there is a past to excuse it by,
        where one was asked for. `drift.severity`: whether what drifted matters, which is what a person is called for
        and a retraining weighs. `drift.KIND` (`input`, `missing`, …): each kind of check.
        `drift.KIND.COLUMN`: each check that is not well.
        """
        reading = self.why if self.judged is None else "; ".join(self.problems)
        out = [self._signal("window", "inconclusive" if reading else "none", reading)]
        if self.judged is None:
            return out
        if self.season:
            unknown = self.judged.no_season
            out.append(self._signal("season", "inconclusive" if unknown else "none", unknown or self.season))
        kinds: dict[str, list[Found]] = {}
        for one in self.judged.found.values():
            kinds.setdefault(one.check.partition(".")[0], []).append(one)
            if one.verdict == "drift" or (one.verdict == "inconclusive" and one.flat.weighs):
                out.append(self._of_check(one))
        out += [self._of_kind(kind, found) for kind, found in sorted(kinds.items())]
        return [*out, self._of_severity(self.judged)]

    def _of_check(self, one: Found) -> Signal:
        if one.verdict == "inconclusive":
            return self._signal(one.check, "inconclusive", one.why)
        return self._signal(
            one.check,
            "drift",
            one.text,
            value=one.flat.effect,
            threshold=one.flat.threshold,
            since=one.since_us or self.since_us,
            details={
                "where": [w.slice for w in one.where],
                "importance": one.importance,
                "psi": one.psi,
                **self._pages(),
            },
        )

    def _of_kind(self, kind: str, found: list[Found]) -> Signal:
        columns = {verdict: [f.column for f in found if f.verdict == verdict] for verdict in ("drift", "seasonal")}
        verdict = whole(found)
        cause = ", ".join(columns["drift"])
        if verdict == "inconclusive":
            cause = next((f"{f.column}: {f.why}" for f in found if f.verdict == "inconclusive"), "nothing to judge")
        elif not cause and columns["seasonal"]:
            cause = f"seasonal: {', '.join(columns['seasonal'])}"
        return self._signal(kind, verdict, cause, value=float(len(columns["drift"])), threshold=0.0)

    def _of_severity(self, judged: Judgement) -> Signal:
        said = judged.severity
        verdict: Verdict = "drift" if said.level in ("moderate", "high") else "none"
        if said.level == "none" and self.verdict == "inconclusive":
            verdict = "inconclusive"
        return self._signal(
            "severity",
            verdict,
            said.text if verdict != "inconclusive" else "parts of the window cannot be judged",
            value=said.weighted,
            threshold=MODERATE,
            since=judged.since_us or self.since_us,
            details={"level": said.level, "outcomes": said.outcomes, **self._pages()},
        )

    def _pages(self) -> dict[str, str | None]:
        """page: what a notice links: in MLflow, which whoever is told can open; a file of this machine until then."""
        return {"page": self.mlflow or self.page or None, "file": self.page or None}

    def _signal(self, name: str, verdict: Verdict, cause: str, **more: Any) -> Signal:
        says: dict[Verdict, Says] = {"drift": "breach", "inconclusive": "inconclusive", "none": "ok", "seasonal": "ok"}
        return Signal(f"drift.{name}", self.model, says[verdict], self.at_us, cause=cause, **more)
