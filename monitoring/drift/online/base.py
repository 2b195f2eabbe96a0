"""Detectors that see one row at a time and raise an alarm at a row.

Each is made for a reference and an expected run time `ert`: how many rows pass, on average, between two false alarms
while nothing changes. After an alarm it starts anew.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from monitoring.drift.base import LEAST_ROWS, CannotJudge

Takes = Literal["values", "hits", "vectors"]  # float64 a row; bool a row; float (D,) a row


@dataclass(frozen=True, slots=True)
class Alarm:
    """row: rows seen in all when it was raised, from 1. rows: since the start or the last alarm."""

    row: int
    rows: int
    statistic: float
    threshold: float


class Online(Protocol):
    """takes: what a row is. A missing row is not shown to it: what goes missing is a stream of hits of its own."""

    takes: ClassVar[Takes]

    def __init__(self, reference: NDArray[Any], *, ert: float, seed: int) -> None:
        """Raises CannotJudge: too few rows, or rows that do not vary."""
        ...

    def update(self, row: Any) -> Alarm | None: ...


def enough(reference: NDArray[Any]) -> NDArray[Any]:
    """The reference without missing rows. Raises CannotJudge."""
    if reference.dtype.kind == "f":
        finite = np.isfinite(reference)
        reference = reference[finite if reference.ndim == 1 else finite.all(axis=1)]
    if len(reference) < LEAST_ROWS:
        raise CannotJudge(f"{len(reference)} rows in the reference, fewer than {LEAST_ROWS}")
    if (reference == reference[0]).all():
        raise CannotJudge("the reference does not vary")
    return reference
