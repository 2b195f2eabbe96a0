"""What people did with what was shown: CTR by place and by score, calibration and the error of each slice.

All are ratios of sums over users, with the delta method's variance over users (Deng et al. 2018): a user's rows are not
independent, and CTR over rows calls an A/A window drifted several times as often as it says. R rows, U users.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from monitoring.drift.base import Result, inconclusive, verdict
from monitoring.drift.service.thinned import unit_of
from monitoring.statistics import fixed
from monitoring.statistics.estimates import CannotTell, Estimate
from monitoring.statistics.samples import Ratio

BUCKETS = 10
PLACES = 20
SLICE_VALUES = 12  # of one slicing, the most frequent
LEAST_USERS = 100
LEAST_POSITIVES = 20
# Least relative change that counts.
FLOOR = 0.1
CALIBRATION = "observed by expected"

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Labelled:
    """Shown rows whose label is known. unit: user, 0 … U − 1; label 0 or 1; score: NaN unknown; slices: name → codes
    of `names`, −1 none."""

    unit: NDArray[np.int64]
    label: Floats
    score: Floats
    position: NDArray[np.int64]
    slices: Mapping[str, tuple[NDArray[np.int64], tuple[str, ...]]]

    @classmethod
    def of(cls, table: pa.Table, slicings: tuple[str, ...] = ()) -> "Labelled":
        """table: `user_id`, `label` (null: not known yet; such rows are left out), `score`, `position`, slicings."""
        table = table.filter(pc.is_valid(table["label"]))
        units = unit_of(table["user_id"]) if table.num_rows else np.empty(0, np.uint64)
        slices = {name: _coded(table[name]) for name in slicings if name in table.column_names}
        return cls(
            np.unique(units, return_inverse=True)[1].astype(np.int64),
            _floats(table["label"]),
            _floats(table["score"]),
            pc.fill_null(table["position"], 0).to_numpy().astype(np.int64),
            slices,
        )

    @property
    def rows(self) -> int:
        return len(self.label)

    def ratio(self, over: Floats | None = None, within: NDArray[np.bool_] | None = None) -> Ratio:
        """Positives by rows (CTR), or by the sum of `over` [R] (observed by expected); `within`: only of these rows."""
        unit, label = self.unit, self.label
        base = np.ones(self.rows) if over is None else over
        if within is not None:
            unit, label, base = unit[within], label[within], base[within]
        if not len(unit):
            return Ratio(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0)
        n = int(unit.max()) + 1
        seen = np.bincount(unit, minlength=n) > 0
        sums = [np.asarray(np.bincount(unit, each, n)[seen], np.float64) for each in (label, base)]
        return Ratio.of(*sums)


def concept(before: Labelled, now: Labelled, *, alpha: float = 0.05) -> dict[str, Result]:
    """Name of each check → what it found, before the correction for their number.

    `ctr`; `calibration`: clicks by the sum of scores; `ctr.place=N`; `ctr.score=N` by tenths of the scores before;
    `error.SLICE`: the calibration of a slice by that of all, so that a change that all slices share is told once.
    """
    found = {"ctr": _compare(before.ratio(), now.ratio(), alpha)}
    for name, masks in _cells(before, now):
        found[name] = _compare(before.ratio(within=masks[0]), now.ratio(within=masks[1]), alpha, weighs=False)
    scored = [np.isfinite(side.score) for side in (before, now)]
    if not all(mask.any() for mask in scored):
        return found | {"calibration": inconclusive(CALIBRATION, "no score is known", FLOOR)}
    sums = [np.nan_to_num(side.score) for side in (before, now)]
    whole = [s.ratio(over, mask) for s, over, mask in zip((before, now), sums, scored, strict=True)]
    found["calibration"] = _compare(whole[0], whole[1], alpha, test=CALIBRATION)
    relative = [
        over * (ratio.value if np.isfinite(ratio.value) else 1.0) for over, ratio in zip(sums, whole, strict=True)
    ]
    for name, code_before, code_now in _slices(before, now):
        masks = (code_before & scored[0], code_now & scored[1])
        ratios = [s.ratio(over, mask) for s, over, mask in zip((before, now), relative, masks, strict=True)]
        found[f"error.{name}"] = _compare(ratios[0], ratios[1], alpha, test=CALIBRATION, weighs=False)
    return found


def _cells(before: Labelled, now: Labelled) -> Iterator[tuple[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]]]:
    for place in range(1, PLACES + 1):
        masks = before.position == place, now.position == place
        if masks[0].any() or masks[1].any():
            yield f"ctr.place={place}", masks
    known = before.score[np.isfinite(before.score)]
    if not len(known):
        return
    edges = np.unique(np.quantile(known, np.arange(1, BUCKETS) / BUCKETS))
    codes = [np.where(np.isfinite(s.score), np.searchsorted(edges, s.score, side="right"), -1) for s in (before, now)]
    for bucket in range(len(edges) + 1):
        yield f"ctr.score={bucket + 1}", (codes[0] == bucket, codes[1] == bucket)


def _slices(before: Labelled, now: Labelled) -> Iterator[tuple[str, NDArray[np.bool_], NDArray[np.bool_]]]:
    for by in before.slices.keys() & now.slices.keys():
        (codes, names), (later, later_names) = before.slices[by], now.slices[by]
        counts = np.bincount(codes[codes >= 0], minlength=len(names))
        for code in np.argsort(-counts, kind="stable")[:SLICE_VALUES]:
            name = names[code]
            other = later_names.index(name) if name in later_names else -2
            yield f"{by}={name}", codes == code, later == other


def _compare(before: Ratio, now: Ratio, alpha: float, *, test: str = "ratio over users", weighs: bool = True) -> Result:
    """weighs: whether it is a gap when this cannot be judged."""
    n = (before.n, now.n)
    for side, ratio in (("baseline", before), ("window", now)):
        if ratio.n < LEAST_USERS or ratio.sum_x < LEAST_POSITIVES:
            why = f"{ratio.n:,} users with {ratio.sum_x:,.0f} positives in the {side}"
            return inconclusive(test, f"{why}, fewer than {LEAST_USERS} or {LEAST_POSITIVES}", FLOOR, n, weighs=weighs)
    found: Estimate | CannotTell = fixed.compare(before, now, alpha=alpha)
    if isinstance(found, CannotTell) or found.p is None or not before.value:
        why = found.reason if isinstance(found, CannotTell) else "nothing to compare with"
        return inconclusive(test, why, FLOOR, n, weighs=weighs)
    effect = abs(now.value / before.value - 1)
    details = {"before": before.value, "now": now.value, "ci": list(found.ci)}
    drift = verdict(found.p, effect, FLOOR, alpha)
    return Result(test, now.value - before.value, found.p, FLOOR, drift, "", effect, None, n, details)


def _coded(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    coded = pc.dictionary_encode(column.cast(pa.string()).combine_chunks())
    codes = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, tuple(coded.dictionary.to_pylist())


def _floats(column: pa.ChunkedArray) -> Floats:
    return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)
