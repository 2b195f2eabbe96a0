"""`experiment analyze`: effect, interval and verdict from two arms' counts.

`pass`: the interval is wholly on the better side of 0; `fail`: wholly on the worse side; else `inconclusive`, and
always so where the arms' sizes do not fit the split (p < 0.001) or nothing can be computed.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from contracts.errors import UsageError
from contracts.evidence import Verdict
from monitoring.statistics import always_valid, fixed, srm
from monitoring.statistics.estimates import CannotTell, Estimate
from monitoring.statistics.samples import Mean, Proportion, Sample

SRM_P = 0.001
Direction = Literal["higher", "lower"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class MeanArm(_Part):
    n: Annotated[int, Field(ge=1)]
    mean: float
    sd: Annotated[float, Field(ge=0)]

    @property
    def sample(self) -> Mean:
        return Mean(self.n, self.mean, self.sd)


class ProportionArm(_Part):
    n: Annotated[int, Field(ge=1)]
    successes: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _no_more_successes_than_units(self) -> "ProportionArm":
        if self.successes > self.n:
            raise ValueError(f"{self.successes} successes of {self.n} units")
        return self

    @property
    def sample(self) -> Proportion:
        return Proportion(self.n, self.successes)


class MeanArms(_Part):
    control: MeanArm
    treatment: MeanArm


class ProportionArms(_Part):
    control: ProportionArm
    treatment: ProportionArm


class _File(_Part):
    method: Literal["fixed", "sequential"] = "sequential"
    tuning_n: Annotated[int, Field(ge=1)] = always_valid.TUNING_N
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    split: tuple[Annotated[float, Field(gt=0, lt=1)], Annotated[float, Field(gt=0, lt=1)]] = (0.5, 0.5)
    direction: Direction = "higher"  # what is better

    @model_validator(mode="after")
    def _split_is_whole(self) -> "_File":
        if abs(sum(self.split) - 1) > 1e-9:
            raise ValueError(f"split sums to {sum(self.split):g}, not 1")
        return self


class MeanFile(_File):
    metric: Literal["mean"]
    arms: MeanArms


class ProportionFile(_File):
    metric: Literal["proportion"]
    arms: ProportionArms


_FILES: TypeAdapter[MeanFile | ProportionFile] = TypeAdapter(
    Annotated[MeanFile | ProportionFile, Field(discriminator="metric")]
)


def read(text: bytes, name: str) -> MeanFile | ProportionFile:
    """
    Raises:
        UsageError: names the keys that are off.
    """
    try:
        return _FILES.validate_json(text)
    except ValidationError as error:
        parts = (f"{'.'.join(str(p) for p in e['loc']) or 'the document'}: {e['msg']}" for e in error.errors())
        raise UsageError(
            f"{name} is no experiment to analyse: {'; '.join(parts)}",
            next_command="streamrec experiment analyze --help",
        ) from error


def analyze(file: MeanFile | ProportionFile) -> dict[str, Any]:
    return judge(
        file.arms.control.sample,
        file.arms.treatment.sample,
        method=file.method,
        alpha=file.alpha,
        tuning_n=file.tuning_n,
        split=file.split,
        direction=file.direction,
    )


def judge(
    control: Sample,
    treatment: Sample,
    *,
    method: Literal["fixed", "sequential"],
    alpha: float,
    tuning_n: int = always_valid.TUNING_N,
    split: tuple[float, float] = (0.5, 0.5),
    direction: Direction = "higher",
    counts: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """The document that scripts read. `srm_p` is of one look (χ²); the always-valid one stands beside it.

    counts: units of the arms, where a metric does not have all of them.
    """
    if method == "fixed":
        found = fixed.compare(control, treatment, alpha=alpha)
    else:
        found = always_valid.compare(control, treatment, alpha=alpha, tuning_n=tuning_n)
    counts = counts or (control.n, treatment.n)
    srm_p = srm.chi_square(counts, split) if sum(counts) else None
    verdict, reason = _verdict(found, srm_p, direction)
    known = found if isinstance(found, Estimate) else None
    return {
        "effect": known.effect if known else None,
        "ci": list(known.ci) if known else None,
        "p": known.p if known else None,
        "srm_p": srm_p,
        "verdict": verdict,
        "convention": known.convention if known else "",
        "reason": reason,
        "method": method,
        "alpha": alpha,
        "direction": direction,
        "relative": _relative(control, treatment, alpha) if method == "fixed" else None,
        "srm_p_always_valid": srm.always_valid(counts, split) if sum(counts) else None,
        "arms": {
            name: {"n": arm.n, "value": arm.value if math.isfinite(arm.value) else None}
            for name, arm in (("control", control), ("treatment", treatment))
        },
    }


def _verdict(found: Estimate | CannotTell, srm_p: float | None, direction: Direction) -> tuple[Verdict, str]:
    if isinstance(found, CannotTell):
        return "inconclusive", found.reason
    if srm_p is None or srm_p < SRM_P:
        return "inconclusive", f"sample-ratio mismatch: the arms' sizes do not fit the split (p = {srm_p:.2g})"
    low, high = found.ci if direction == "higher" else (-found.ci[1], -found.ci[0])
    if low > 0:
        return "pass", "the interval is wholly on the better side of 0"
    if high < 0:
        return "fail", "the interval is wholly on the worse side of 0"
    return "inconclusive", "the interval holds 0"


def _relative(control: Sample, treatment: Sample, alpha: float) -> dict[str, Any] | None:
    found = fixed.relative(control, treatment, alpha=alpha)
    if isinstance(found, CannotTell):
        return None
    return {"effect": found.effect, "ci": list(found.ci), "convention": found.convention}
