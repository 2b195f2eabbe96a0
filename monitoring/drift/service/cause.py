"""Where a shift is and when it began: of one column, by bins that its reference sets.

n rows of the reference, m of the window, B bins.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitoring.drift.service.binned import Bins, Codes

LEAST = 30  # rows on a side before anything is said of a slice or a moment
CONCENTRATED = 2.0  # a slice is named when its part of the shift is so many times its part of the rows
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Where:
    """A slice's part of the shift, and of the window's rows."""

    slice: str
    of_shift: float
    of_rows: float

    @property
    def concentrated(self) -> bool:
        return self.of_shift >= 0.3 and self.of_shift >= CONCENTRATED * self.of_rows


def concentration(
    bins: Bins, reference: Codes, current: Codes, slices: Mapping[str, tuple[Codes, Codes, tuple[str, ...]]]
) -> list[Where]:
    """Slices by their part of the shift, largest first.

    slices: name of the slicing → code of each row on both sides, −1 none, and the names of the codes. The parts of one
    slicing sum to 1: with Δ the change of each bin's share, a slice has Σ sign(Δ_b) δ_b of Σ |Δ_b|, δ its own change,
    so that what is noise within it cancels.
    """
    change = _shares(current, bins.size) - _shares(reference, bins.size)
    total = np.abs(change).sum()
    if not total:
        return []
    found = []
    for by, (before, now, names) in slices.items():
        for code, name in enumerate(names):
            mine = now == code
            if mine.sum() < LEAST:
                continue
            delta = np.bincount(current[mine], minlength=bins.size) / len(current)
            delta = delta - np.bincount(reference[before == code], minlength=bins.size) / len(reference)
            part = float((np.sign(change) * delta).sum() / total)
            found.append(Where(f"{by}={name}", part, float(mine.mean())))
    return sorted(found, key=lambda w: -w.of_shift)


def began(bins: Bins, reference: Codes, current: Codes, when_us: NDArray[np.int64]) -> int | None:
    """The moment from which on the rows are as they are at the end: the most likely one change (Page's CUSUM, 1954).

    Each row has log(q(bin) / p(bin)), p the reference's shares, q those of the rows from the change on, by turns with
    the change itself, from the last quarter on. None where the window as a whole is shifted: it began before.
    """
    if len(current) < 4 * LEAST:
        return None
    order = np.argsort(when_us, kind="stable")
    codes, when = current[order], when_us[order]
    expected = bins.shares(reference)
    at = 3 * len(codes) // 4
    for _ in range(ROUNDS):
        ratio = np.log(bins.shares(codes[at:]) / expected)[codes]
        # Of all beginnings, the one with the largest sum from there to the end.
        sums = np.cumsum(ratio[::-1])[::-1]
        found = int(np.argmax(sums[: len(sums) - LEAST]))
        if found == at:
            break
        at = found
    return None if at < max(LEAST, len(codes) // 50) else int(when[at])


def moved(bins: Bins, reference: Codes, current: Codes, most: int = 3) -> list[tuple[str, float, float]]:
    """The bins whose share changed most: name, share before, share now."""
    before, now = _shares(reference, bins.size), _shares(current, bins.size)
    first = np.argsort(-np.abs(now - before), kind="stable")[:most]
    return [(bins.name(int(b)), float(before[b]), float(now[b])) for b in first if now[b] != before[b]]


def _shares(codes: Codes, size: int) -> NDArray[np.float64]:
    return np.bincount(codes, minlength=size) / max(len(codes), 1)
