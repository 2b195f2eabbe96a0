"""What is known of a release or an experiment at one moment: the only thing that gates judge by.

Measured per metric, over units of assignment (n is users, not requests). `effect` is absolute: treatment minus control.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from contracts.evidence import Verdict


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ArmCount(_Value):
    """requests: of the arm, by assigned variant. rungs: how many of them each rung of the ladder answered."""

    units: int
    requests: int
    rungs: dict[str, int] = {}


class Measured(_Value):
    """One metric, or one slice of it.

    value, value_ci: of the candidate's arm. effect, ci, p: against the concurrent control; None where there is none.
    Intervals are always valid at the α that the policy gives this metric, so that one may look at any time. `problem`:
    why it could not be measured; then nothing else counts and the verdict is `inconclusive`.
    """

    name: str
    n: int = 0  # units in the candidate's arm
    n_control: int = 0
    samples: int = 0  # requests (or impressions) in the candidate's arm
    value: float | None = None
    value_ci: tuple[float, float] | None = None
    control: float | None = None
    effect: float | None = None
    ci: tuple[float, float] | None = None
    p: float | None = None
    stratified_effect: float | None = None  # by rung of the ladder, beside intention-to-treat
    convention: str = ""  # which interval, which variance
    slices: dict[str, "Measured"] = {}  # "country=DE" → its own, at the α left after correction
    problem: str | None = None


class Snapshot(_Value):
    """Evidence of one release, all since `since_us`."""

    release: str
    step: int
    taken_us: int
    since_us: int
    arms: dict[str, ArmCount] = {}  # `candidate`, `control`, `champion`, `shadow`
    metrics: dict[str, Measured] = {}
    srm_p: float | None = None
    rung_mix_p: float | None = None  # do the arms' mixes of rungs differ? (over units)
    panel: dict[str, int] = {}  # edge case → shadow requests that were one
    ready: dict[str, bool] = Field({}, description="Bento → does it answer its /readyz now")
    problem: str | None = None  # the evidence as a whole could not be had


class MetricVerdict(_Value):
    """A gate's word on one metric."""

    name: str
    verdict: Verdict
    reason: str
    critical: bool = False
    role: Literal["guardrail", "signal", "primary", "report"] = "guardrail"
