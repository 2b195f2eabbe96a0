"""What drifted in a window, against training and against its season: where, since when, and how much it weighs.

Pure: tables of one row a user in, a `Judgement` out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from monitoring.drift.base import ALPHA, Engine, Result
from monitoring.drift.correction import correct
from monitoring.drift.service.binned import Bins, Codes, psi
from monitoring.drift.service.cause import LEAST, Where, began, concentration, moved
from monitoring.drift.service.columns import CATEGORY, ITEM, SCORE, coded, column_of, judge
from monitoring.drift.service.season import LEAST_USERS, Verdict, in_season
from monitoring.drift.service.severity import Outcomes, Severity, severity, shares_of

NAMED = 3  # slices that a finding names
SLICE_VALUES = 12


@dataclass(frozen=True, slots=True)
class Found:
    """One check. flat: against training; season: against the same time of the past, None where that is not known.

    importance: the column's part of the ranker's, None unknown. moved: bins whose share changed most, before and now.
    """

    check: str
    verdict: Verdict
    why: str
    flat: Result
    season: Result | None = None
    psi: float | None = None
    importance: float | None = None
    since_us: int | None = None
    where: tuple[Where, ...] = ()
    moved: tuple[tuple[str, float, float], ...] = ()

    @property
    def column(self) -> str:
        return column_of(self.check)

    @property
    def text(self) -> str:
        """One sentence for a person."""
        parts = [f"{self.column} {'differs by the season' if self.verdict == 'seasonal' else 'drifted'}"]
        if self.flat.effect is not None:
            parts.append(f"{self.flat.test} {self.flat.effect:.3g}, least {self.flat.threshold:g}")
        parts += [f"{name} {before:.1%} to {now:.1%}" for name, before, now in self.moved[:1]]
        parts += [f"mostly {w.slice} ({w.of_shift:.0%} of the shift, {w.of_rows:.0%} of the rows)" for w in self.where]
        return ", ".join(parts)

    def document(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "why": self.why,
            **{k: v for k, v in self.flat.document().items() if k not in ("verdict", "why", "drift")},
            "drift": {"drift": True, "inconclusive": None}.get(self.verdict, False),
            "season": None if self.season is None else self.season.document(),
            "psi": self.psi,
            "importance": self.importance,
            "since_us": self.since_us,
            "where": [{"slice": w.slice, "of_shift": w.of_shift, "of_rows": w.of_rows} for w in self.where],
            "moved": [{"bin": name, "reference": before, "current": now} for name, before, now in self.moved],
        }


@dataclass(frozen=True, slots=True)
class Judgement:
    found: Mapping[str, Found]
    severity: Severity
    rows: tuple[int, int] = (0, 0)  # of one a user: reference, window
    no_season: str = ""  # why the season that was asked for is not known

    @property
    def verdict(self) -> Verdict:
        return whole(self.found.values())

    def of(self, verdict: Verdict) -> list[Found]:
        """Findings with that verdict, the ones that weigh most first."""
        mine = [f for f in self.found.values() if f.verdict == verdict]
        return sorted(mine, key=lambda f: (-(f.importance or 0.0) * (f.psi or 0.0), -(f.psi or 0.0), f.check))

    @property
    def since_us(self) -> int | None:
        """The earliest moment that a drifted column names."""
        return min((f.since_us for f in self.of("drift") if f.since_us is not None), default=None)


def whole(found: Iterable[Found]) -> Verdict:
    """`drift` where one drifted, `seasonal` where one would have but for its season; `none` only without a gap."""
    seen: set[Verdict] = {f.verdict for f in found if f.flat.weighs}
    order: tuple[Verdict, ...] = ("drift", "inconclusive", "seasonal", "none")
    return next((v for v in order if v in seen), "inconclusive")


def judgement(
    reference: pa.Table,
    current: pa.Table,
    features: Sequence[str],
    *,
    engine: Engine,
    season: pa.Table | None = None,
    no_season: str = "",
    further: Mapping[str, Result] | None = None,
    outcomes: Outcomes | None = None,
    importance: Mapping[str, float] | None = None,
    slicings: Sequence[str] = (),
    seed: int = 0,
    alpha: float = ALPHA,
) -> Judgement:
    """
    Args:
        reference, current, season: one row a user; `timestamp` of the window's rows says since when.
        no_season: why there is none. further: results of other checks (embeddings, concept), corrected with the rest.
        outcomes: default: as the checks `concept.…` of `further` say. importance: column → importance.
        slicings: columns whose values are slices.
    """
    flat = judge(reference, current, features, engine=engine, seed=seed, alpha=alpha)
    flat = correct({**flat, **(further or {})}, alpha)
    past: Mapping[str, Result] | None = None
    if season is not None and season.num_rows < LEAST_USERS:
        no_season = f"the season is not known: {season.num_rows} users in the past windows, fewer than {LEAST_USERS}"
    elif season is not None:
        past = correct(judge(season, current, features, engine=engine, seed=seed, alpha=alpha), alpha)
    weights = shares_of(importance or {}, tuple(importance or ()))
    sliced = _slices(reference, current, slicings)
    found: dict[str, Found] = {}
    for check, result in flat.items():
        then = past.get(check) if past is not None else None
        verdict, why = in_season(result, then, no_season)
        one = Found(check, verdict, why, result, then, importance=weights.get(column_of(check)))
        found[check] = _caused(one, reference, current, sliced)
    drifted = [f for f in found.values() if f.verdict == "drift"]
    by_column = {f.column: f.psi for f in drifted if f.psi is not None}
    unweighed = [f.check for f in drifted if f.psi is None and not f.check.startswith("concept.")]
    weigh = severity(by_column, weights, len(features), outcomes or _moved(flat), unweighed)
    return Judgement(found, weigh, (reference.num_rows, current.num_rows), no_season)


def _moved(flat: Mapping[str, Result]) -> Outcomes:
    verdicts = {result.drift for check, result in flat.items() if check.startswith("concept.")}
    return "moved" if "drift" in verdicts else "as before" if "none" in verdicts else "not known"


def _caused(found: Found, reference: pa.Table, current: pa.Table, slices: "Slices") -> Found:
    """With PSI, where the finding is of one column of both tables; of a shift also bins, slices and the moment."""
    if found.verdict == "inconclusive" or (found.verdict == "none" and not found.check.startswith("input.")):
        return found
    name = {"output.popularity": ITEM, "output.coverage": ""}.get(found.check, found.column)
    name = {"output.score": SCORE, "output.category": CATEGORY}.get(found.check, name)
    if name not in reference.column_names or name not in current.column_names:
        return found
    bins = Bins.of(reference[name])
    before, now = bins.codes(reference[name]), bins.codes(current[name])
    if min(len(before), len(now)) < LEAST:
        return found
    found = replace(found, psi=psi(bins.shares(before), bins.shares(now)))
    if found.verdict == "none":
        return found
    others = {by: sides for by, sides in slices.items() if by != name}
    where = [w for w in concentration(bins, before, now, others) if w.concentrated][:NAMED]
    moment = None
    if "timestamp" in current.column_names:
        when = pc.cast(current["timestamp"], pa.int64()).to_numpy()
        moment = began(bins, before, now, when)
    return replace(
        found,
        since_us=moment,
        where=tuple(where),
        moved=tuple(moved(bins, before, now)),
    )


Slices = Mapping[str, tuple[Codes, Codes, tuple[str, ...]]]


def _slices(reference: pa.Table, current: pa.Table, slicings: Sequence[str]) -> Slices:
    """The most frequent values of each slicing in the window; the rest is in none."""
    out: dict[str, tuple[Codes, Codes, tuple[str, ...]]] = {}
    for by in slicings:
        if by not in reference.column_names or by not in current.column_names:
            continue
        (before, now), words = coded(reference[by], current[by])
        counts = np.bincount(now[now >= 0], minlength=len(words))
        first = np.argsort(-counts, kind="stable")[:SLICE_VALUES]
        out[by] = (_recoded(before, first), _recoded(now, first), tuple(words[i] for i in first))
    return out


def _recoded(codes: Codes, kept: NDArray[np.int64]) -> Codes:
    """Places in `kept`; −1 for a code that is not in it."""
    place = np.full(int(max(codes.max(initial=0), kept.max(initial=0))) + 2, -1, np.int64)
    place[kept] = np.arange(len(kept))
    return place[codes]
