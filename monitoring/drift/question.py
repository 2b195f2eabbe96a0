"""What is asked of a window, and how one detector is asked it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from contracts.errors import UsageError
from monitoring.drift.base import ALPHA, Columns, Engine, Result
from monitoring.drift.registry import DETECTORS


@dataclass(frozen=True, slots=True)
class Question:
    """What to look for. features: only these columns; None: all, and what came of them. slices: columns whose errors
    are looked at slice by slice; None: the usual ones that are there. unit: a column whose rows of one value are not
    independent (a request, a user): one row of each is drawn and judged."""

    alpha: float = ALPHA
    seed: int = 0
    features: Sequence[str] | None = None
    slices: Sequence[str] | None = None
    numbers: str = "ks"
    vectors: str = "mmd"
    unit: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise UsageError(f"--alpha is {self.alpha}, not between 0 and 1")
        for flag, name, known in (
            ("number", self.numbers, ("ks", "cvm", "psi")),
            ("vector", self.vectors, ("mmd", "lsdd")),
        ):
            if name not in known:
                raise UsageError(f"--{flag}-test {name}: there are {', '.join(known)}")


STANDARD = Question()


def ask_one(test: str, sides: tuple[Columns, Columns], engine: Engine, ask: Question) -> Result:
    """sides: the reference's columns and the current window's."""
    return DETECTORS[test](*sides, engine=engine, seed=ask.seed, alpha=ask.alpha)


def named(result: Result, names: list[str]) -> Result:
    """Codes in the details become the categories' names."""
    moved = result.details.get("moved")
    if not names or not moved:
        return result
    rows = [{**row, "category": names[row["category"]]} for row in moved]
    return replace(result, details={**result.details, "moved": rows})
