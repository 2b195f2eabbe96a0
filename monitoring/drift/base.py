"""What a drift detector is asked and what it answers. One call shape for inputs, outputs and concept, on both engines.

A detector takes two sets of aligned NumPy columns by role, the reference's and the current window's:

    values     float64 (N,)    a number a row; NaN: missing
    codes      int64 (N,)      a category a row, the same code on both sides; −1: missing
    vectors    float (N, D)    an embedding a row
    keys       (N,)            whose embedding it is
    scores     float64 (N,)    the ranker's probability
    labels     float64 (N,)    1 or 0; NaN: not known (yet)
    positions  int64 (N,)      place in the slate, from 1
    slices     int64 (N,)      the slice a row is in; −1: none
    items      int64 (N,)      the item shown, the same code on both sides
    sources    bool (N, S)     which sources proposed it
    missing    bool (N,)       whether the row's value is missing

and answers with a `Result`. Its verdict has three values, and "drift" needs two things: p ≤ α (where the test has a p)
and an effect of at least the detector's floor, because on 100,000 rows everything is significant. Effects do not depend
on the number of rows. `correction.correct` judges many results again, at p-values adjusted for their number.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["drift", "none", "inconclusive"]
EngineName = Literal["alibi", "scipy"]
Columns = Mapping[str, NDArray[Any]]
Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

ALPHA = 0.05
LEAST_ROWS = 30  # a side; below it the laws behind the p-values are not yet true


@dataclass(frozen=True, slots=True)
class Result:
    """What one detector says of one window.

    statistic: of the test, in its own scale. effect: how far apart, whatever the number of rows; drift needs at least
    `threshold` of it. p_adjusted: only after a correction. weighs: False where the result is no evidence against the
    rest (a constant, a column that the reference does not have): it does not make the whole inconclusive.
    """

    test: str
    statistic: float | None
    p: float | None
    threshold: float
    drift: Verdict
    why: str = ""
    effect: float | None = None
    p_adjusted: float | None = None
    n: tuple[int, int] = (0, 0)
    details: Mapping[str, Any] = field(default_factory=dict)
    weighs: bool = True

    def at(self, alpha: float, p_adjusted: float | None) -> "Result":
        """The same finding judged at an adjusted p. What was inconclusive stays so."""
        if self.drift == "inconclusive":
            return self
        return replace(self, p_adjusted=p_adjusted, drift=verdict(p_adjusted, self.effect, self.threshold, alpha))

    def document(self) -> dict[str, Any]:
        """As JSON has it: `drift` is true, false or null (inconclusive), `verdict` is the word."""
        found = asdict(self)
        found["verdict"] = found.pop("drift")
        found["drift"] = None if self.drift == "inconclusive" else self.drift == "drift"
        found["n"] = {"reference": self.n[0], "current": self.n[1]}
        found["details"] = dict(self.details)
        return found


class Statistic(NamedTuple):
    statistic: float
    p: float


class Engine(Protocol):
    """Two-sample tests on finite arrays that are long enough; whoever calls has seen to that."""

    name: EngineName

    def ks(self, reference: Floats, current: Floats) -> Statistic: ...
    def cvm(self, reference: Floats, current: Floats) -> Statistic: ...
    def chi_square(self, reference: Codes, current: Codes) -> Statistic:
        """Codes from 0 without gaps."""
        ...

    def fisher(self, reference: NDArray[np.bool_], current: NDArray[np.bool_]) -> Statistic:
        """statistic: the odds ratio."""
        ...

    def mmd(self, reference: Floats, current: Floats, seed: int) -> Statistic: ...
    def lsdd(self, reference: Floats, current: Floats, seed: int) -> Statistic: ...


class CannotJudge(Exception):
    """Raised within a detector: the reason becomes the verdict `inconclusive`."""

    def __init__(self, why: str, *, weighs: bool = True, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(why)
        self.weighs = weighs
        self.details = details or {}


@dataclass(frozen=True, slots=True)
class Finding:
    """What `compare` measured. p None: not a test, the effect alone decides."""

    statistic: float
    p: float | None
    effect: float
    details: Mapping[str, Any] = field(default_factory=dict)
    n: tuple[int, int] | None = None
    why: str = ""


class Detector(ABC):
    """Guards, floor and verdict of all detectors; a file of its own has what one measures."""

    name: ClassVar[str]
    takes: ClassVar[tuple[str, ...]]  # roles
    floor: ClassVar[float]  # least effect that counts; its unit stands in the detector's docstring

    def __call__(
        self, reference: Columns, current: Columns, *, engine: Engine, seed: int = 0, alpha: float = ALPHA
    ) -> Result:
        """Never raises for what the data are: that is a verdict."""
        n = (_rows(reference, self.takes), _rows(current, self.takes))
        try:
            self._check(reference, "reference")
            self._check(current, "current")
            found = self.compare(reference, current, engine=engine, seed=seed)
        except CannotJudge as reason:
            return inconclusive(self.name, str(reason), self.floor, n, weighs=reason.weighs, details=reason.details)
        n = found.n or n
        if not math.isfinite(found.effect) or (found.p is not None and not math.isfinite(found.p)):
            return inconclusive(self.name, "the test gives no number on these rows", self.floor, n)
        drift = verdict(found.p, found.effect, self.floor, alpha)
        return Result(
            self.name, found.statistic, found.p, self.floor, drift, found.why, found.effect, None, n, found.details
        )

    @abstractmethod
    def compare(self, reference: Columns, current: Columns, *, engine: Engine, seed: int) -> Finding:
        """Measure. Raises CannotJudge where the data do not allow it."""

    def _check(self, columns: Columns, side: str) -> None:
        lengths = set()
        for role in self.takes:
            if role not in columns:
                raise CannotJudge(f"the {side} has no {role}")
            lengths.add(len(columns[role]))
        if len(lengths) > 1:
            raise CannotJudge(f"the columns of the {side} differ in length")
        (rows,) = lengths
        if rows == 0:
            raise CannotJudge(f"the {side} is empty")
        if rows < LEAST_ROWS:
            raise CannotJudge(f"{rows} {'row' if rows == 1 else 'rows'} in the {side}, fewer than {LEAST_ROWS}")


def verdict(p: float | None, effect: float | None, floor: float, alpha: float) -> Verdict:
    if effect is None:
        return "inconclusive"
    return "drift" if effect >= floor and (p is None or p <= alpha) else "none"


def inconclusive(
    test: str,
    why: str,
    floor: float = 0.0,
    n: tuple[int, int] = (0, 0),
    *,
    weighs: bool = True,
    details: Mapping[str, Any] | None = None,
) -> Result:
    return Result(test, None, None, floor, "inconclusive", why, n=n, details=details or {}, weighs=weighs)


def known(values: Floats, side: str) -> Floats:
    """The values that are there. Raises CannotJudge: none is, fewer than LEAST_ROWS are, or some are infinite."""
    there = values[~np.isnan(values)]
    if not len(there):
        raise CannotJudge(f"every value of the {side} is missing")
    if not np.isfinite(there).all():
        raise CannotJudge(f"{int((~np.isfinite(there)).sum())} infinite values in the {side}")
    if len(there) < LEAST_ROWS:
        raise CannotJudge(f"{len(there)} values that are not missing in the {side}, fewer than {LEAST_ROWS}")
    return there


def present(codes: Codes, side: str) -> Codes:
    """The codes that are there. Raises CannotJudge: none is, or fewer than LEAST_ROWS are."""
    there = codes[codes >= 0]
    if not len(there):
        raise CannotJudge(f"every value of the {side} is missing")
    if len(there) < LEAST_ROWS:
        raise CannotJudge(f"{len(there)} values that are not missing in the {side}, fewer than {LEAST_ROWS}")
    return there


def _rows(columns: Columns, roles: tuple[str, ...]) -> int:
    return next((len(columns[r]) for r in roles if r in columns), 0)
