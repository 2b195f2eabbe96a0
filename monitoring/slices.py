"""`monitor slices`: what people did, slice by slice, and the slice that is served worst.

A slice is judged by its calibration, positives by the sum of scores, against that of everybody else: that countries
click more or less is how they are, that a country clicks less than its own scores say is the model's error. Intervals
are over users (delta method), p-values are corrected for the number of slices (Benjamini & Hochberg 1995).
"""

from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from monitoring.drift.service.labelled import SLICINGS
from monitoring.drift.service.outcomes import LEAST_POSITIVES, LEAST_USERS, Floats, Labelled
from monitoring.signals import Signal, Verdict
from monitoring.statistics import fixed
from monitoring.statistics.estimates import CannotTell
from monitoring.statistics.multiplicity import adjusted
from monitoring.statistics.samples import Ratio

ALPHA = 0.05
FLOOR = 0.2  # least relative error against everybody else that counts
VALUES = 20  # of one slicing, the most frequent
Interval = tuple[float, float]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Slice:
    """ctr, calibration: None where no label, or no score, is known. error: calibration against the others' − 1; below 0
    people like what they are shown less than the scores say."""

    name: str
    rows: int
    users: int
    positives: int
    ctr: float | None
    ctr_interval: Interval | None
    calibration: float | None
    calibration_interval: Interval | None
    error: float | None
    p_adjusted: float | None
    verdict: Verdict
    why: str

    def signal(self, model: str, at_us: int) -> Signal:
        said = f"{self.name}: positives {self.error:+.0%} against its scores" if self.error is not None else self.name
        details = {"users": self.users, "positives": self.positives, "ctr": self.ctr}
        return Signal(
            f"slice.{self.name}.error", model, self.verdict, at_us, abs(self.error) if self.error is not None else None,
            FLOOR, cause=self.why or said, details=details,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class SlicesReport:
    """worst: the judged slice whose people are furthest below their scores, None where none is in breach."""

    model: str
    rows: int
    whole: Slice
    slices: tuple[Slice, ...]
    why: str = ""

    @property
    def worst(self) -> Slice | None:
        return min((s for s in self.slices if s.verdict == "breach"), key=lambda s: s.error or 0.0, default=None)

    @property
    def verdict(self) -> Verdict:
        if self.worst:
            return "breach"
        return "ok" if any(s.verdict == "ok" for s in self.slices) else "inconclusive"

    def document(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "why": self.why,
            "model": self.model,
            "rows": self.rows,
            "worst": self.worst.name if self.worst else None,
            "whole": asdict(self.whole),
            "slices": [asdict(s) for s in self.slices],
        }

    def signals(self, at_us: int) -> list[Signal]:
        """One for all, and one for each slice in breach."""
        cause = self.worst.signal(self.model, at_us).cause if self.worst else self.why
        cause = cause or ("no slice has enough users" if self.verdict == "inconclusive" else "")
        value = abs(self.worst.error or 0.0) if self.worst else None
        whole = Signal("slice.error", self.model, self.verdict, at_us, value, FLOOR, cause=cause)
        return [whole, *(s.signal(self.model, at_us) for s in self.slices if s.verdict == "breach")]


def slices(table: pa.Table, *, model: str = "", slicings: tuple[str, ...] = SLICINGS) -> SlicesReport:
    """table: as `labelled.LabelSource` gives them."""
    data = Labelled.of(table, slicings)
    scored = np.isfinite(data.score)
    sums = np.nan_to_num(data.score)
    everybody = np.ones(data.rows, bool)
    whole = _slice("all", data, sums, scored, everybody)
    found: dict[str, Slice] = {}
    p: dict[str, float] = {}
    for by, (codes, names) in data.slices.items():
        counts = np.bincount(codes[codes >= 0], minlength=len(names))
        for code in np.argsort(-counts, kind="stable")[:VALUES]:
            mine = codes == code
            one = _slice(f"{by}={names[code]}", data, sums, scored, mine)
            found[one.name], chance = _against(one, data, sums, mine & scored, ~mine & scored)
            if chance is not None:
                p[one.name] = chance
    after = adjusted(p)
    judged = [_judged(one, after.get(name)) for name, one in found.items()]
    judged.sort(key=lambda s: (s.verdict != "breach", s.error if s.error is not None else np.inf))
    why = "" if data.rows else "no label of the window is known yet"
    return SlicesReport(model, table.num_rows, whole, tuple(judged), why)


def _slice(name: str, data: Labelled, sums: Floats, scored: Mask, mine: Mask) -> Slice:
    rate, calibration = data.ratio(within=mine), data.ratio(sums, mine & scored)
    ctr, ctr_interval = _interval(rate)
    value, interval = _interval(calibration)
    return Slice(
        name, int(mine.sum()), rate.n, round(rate.sum_x), ctr, ctr_interval, value, interval, None, None,
        "inconclusive", "",
    )  # fmt: skip


def _against(
    one: Slice,
    data: Labelled,
    sums: Floats,
    mine: Mask,
    others: Mask,
) -> tuple[Slice, float | None]:
    """With its error against everybody else, and the chance of it; without, why not."""
    sides = data.ratio(sums, others), data.ratio(sums, mine)
    for name, side in zip(("the others", "the slice"), sides, strict=True):
        if side.n < LEAST_USERS or side.sum_x < LEAST_POSITIVES:
            few = f"{side.n} users with {side.sum_x:.0f} positives in {name}"
            return replace(one, why=f"{few}, fewer than {LEAST_USERS} or {LEAST_POSITIVES}"), None
    estimate = fixed.compare(*sides, alpha=ALPHA)
    if isinstance(estimate, CannotTell) or estimate.p is None or not sides[0].value:
        return replace(
            one, why=estimate.reason if isinstance(estimate, CannotTell) else "nothing to compare with"
        ), None
    return replace(one, error=sides[1].value / sides[0].value - 1), estimate.p


def _judged(one: Slice, p: float | None) -> Slice:
    if p is None or one.error is None:
        return one
    far = p <= ALPHA and abs(one.error) >= FLOOR
    return replace(one, p_adjusted=p, verdict="breach" if far else "ok")


def _interval(ratio: Ratio) -> tuple[float | None, Interval | None]:
    if not ratio.n or not np.isfinite(ratio.value):
        return None, None
    if ratio.n < 2 or not np.isfinite(ratio.variance):
        return ratio.value, None
    half = NormalDist().inv_cdf(1 - ALPHA / 2) * ratio.variance**0.5
    return ratio.value, (ratio.value - half, ratio.value + half)
