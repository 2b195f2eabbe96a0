"""What a check of the watch says: one signal, whatever was looked at.

Drift, skew, slices, outcome metrics, service levels and ages all become signals. Alerts and the retraining policy read
nothing else. A signal's name is a path, family first:

    drift.input.price      drift.missing.price   drift.output.score   drift.concept.calibration   drift.embedding.item
    drift.online.score     drift.online.clicks
    skew.statistics.price  skew.rows.price       skew.whole           slice.country=DE.error      level.availability
    outcome.ctr            outcome.calibration   age.model            age.batch_lists             run.training
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["ok", "breach", "inconclusive"]
VERDICTS: tuple[Verdict, ...] = ("ok", "breach", "inconclusive")


@dataclass(frozen=True, slots=True)
class Signal:
    """One check at one moment. Times are microseconds since the epoch, UTC.

    model: the model version or Bento that is meant (`streamrec-ranking/7`, `streamrec:abc`); "" where a signal is of
    the service as a whole. value, threshold: in the unit of the check, None where it has none (never NaN).
    since: when what is seen began, None where that is not known. cause: one sentence for a person; an `inconclusive`
    signal must have one. details: figures that JSON can hold. seen: the look that first found it so, of all that found
    it so without a break; kept by whoever takes signals in (`alerts/grouping.py`), so that one look alone moves nobody.
    """

    name: str
    model: str
    verdict: Verdict
    at: int
    value: float | None = None
    threshold: float | None = None
    since: int | None = None
    cause: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    seen: int | None = None

    def __post_init__(self) -> None:
        if not self.name or self.verdict not in VERDICTS:
            raise ValueError(f"no signal: name {self.name!r}, verdict {self.verdict!r}")
        if self.verdict == "inconclusive" and not self.cause:
            raise ValueError(f"{self.name}: an inconclusive signal says why")
        for number in (self.value, self.threshold):
            if number is not None and not math.isfinite(number):
                raise ValueError(f"{self.name}: {number} is no figure; None says that there is none")

    @property
    def family(self) -> str:
        """`drift`, `skew`, `outcome`, `slice`, `level`, `age`, `run`."""
        return self.name.partition(".")[0]

    @property
    def lasted_us(self) -> int:
        """From the first look that found it so to the last; 0 after one look."""
        return self.at - self.seen if self.seen is not None else 0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def signal_of(row: Mapping[str, Any]) -> Signal:
    """The signal back from `as_json`; keys that this version does not know are left out."""
    known = Signal.__dataclass_fields__
    return Signal(**{key: value for key, value in row.items() if key in known})


def worst(signals: tuple[Signal, ...] | list[Signal]) -> Verdict:
    """`breach` if one is, else `inconclusive` if one is or none is there, else `ok`."""
    verdicts = {signal.verdict for signal in signals}
    if "breach" in verdicts:
        return "breach"
    return "inconclusive" if "inconclusive" in verdicts or not verdicts else "ok"
