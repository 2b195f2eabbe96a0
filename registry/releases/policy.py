"""A release policy: typed, from a TOML file of the catalogue, frozen by hash when a release starts.

Built-in policies are `registry/policies/*.toml`, an operator's own `home/policies/*.toml`; a release names its policy
as `NAME@VERSION` and carries the text.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from contracts.routing import Condition, Name, Percent, Unit

MetricKind = Literal[
    "error_rate",  # failed attempts / attempts of the arm's own target, also where failover saved the answer
    "latency_over",  # share of attempts slower than `limit_ms`
    "p99_ms",  # shadow only, absolute: by the share slower than the limit
    "degradation",  # share of answers below `full` (or below `rung`)
    "empty",  # share of answers without an item
    "ctr",  # clicks / impressions
    "event_rate",  # units with `event`, of all units (purchases)
    "event_mean",  # mean of `event`s a unit
    "value_mean",  # mean of the `value` of `event`s a unit (revenue)
    "sql",  # `sql` gives `unit, numerator, denominator` from tables exposures, attempts, events
    "score_correlation",  # shadow: mean Spearman correlation with the served scores
    "score_range",  # shadow: share of answers with scores outside `range`
    "schema",  # shadow: share of answers that break the schema of a slate
    "overlap",  # shadow: mean Jaccard index of the slates
    "watch",  # how many of the watch's `signals` of the candidate are in breach
    "score_shift",  # shadow: mean Kolmogorov-Smirnov distance of the slates' scores
]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Metric(_Part):
    """One metric and how it is judged, in the steps that list it.

    Absolute (`limit`): the value, with its always-valid bound, against the limit. Comparison (`margin`): the effect
    against the concurrent control; harm is an interval wholly on the wrong side of 0, non-inferiority one wholly on the
    right side of `-margin`. A metric with neither is reported.
    """

    name: Name
    kind: MetricKind
    direction: Literal["lower", "higher"]  # what is better
    role: Literal["primary", "guardrail", "signal", "report"] = "guardrail"
    critical: bool = False  # a failed critical guardrail rolls back at once, in every state
    limit: float | None = None
    margin: Annotated[float, Field(ge=0)] | None = None
    relative: bool = False  # `margin` is a share of the control's value
    limit_ms: Annotated[float, Field(gt=0)] | None = None
    rung: str | None = None
    event: str | None = None
    sql: str | None = None
    signals: tuple[str, ...] = ()  # names of signals, with `*`: `skew.*`
    range: tuple[float, float] | None = None
    slices: tuple[Name, ...] = ()  # keys of the request's context
    slice_least_units: Annotated[int, Field(ge=2)] = 100
    attribution_hours: Annotated[float, Field(gt=0)] = 24.0
    weight: Annotated[float, Field(gt=0)] = 1.0  # of its share of α

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> "Metric":
        needs = {
            "latency_over": "limit_ms",
            "event_rate": "event",
            "event_mean": "event",
            "value_mean": "event",
            "sql": "sql",
            "score_range": "range",
        }.get(self.kind)
        if needs and getattr(self, needs) is None:
            raise ValueError(f"a metric of kind {self.kind} needs `{needs}`")
        if (self.kind == "watch") != bool(self.signals):
            raise ValueError("a metric of kind watch needs `signals`, and no other has them")
        if self.limit is not None and self.margin is not None:
            raise ValueError("`limit` is absolute and `margin` compares: give one")
        if self.critical and self.role != "guardrail":
            raise ValueError("only a guardrail is critical")
        return self


class Step(_Part):
    """One step of the plan. `weight`: percent on the candidate (canary, ab) or mirrored (shadow).

    The step passes when all hold: `least_minutes` are over, `least_samples` are there (requests of the candidate's
    arm), and no metric of `metrics` fails or, where `prove` says so, is short of its non-inferiority. Past
    `deadline_minutes` without a verdict: `on_deadline`.
    """

    kind: Literal["shadow", "canary", "ab"]
    weight: Percent
    metrics: tuple[Name, ...]
    least_minutes: Annotated[float, Field(ge=0)] = 10
    least_samples: Annotated[int, Field(ge=1)] = 1000
    deadline_minutes: Annotated[float, Field(gt=0)] = 1440
    on_deadline: Literal["pause", "rollback"] = "pause"
    prove: bool = False  # demand non-inferiority (lower bound above the margin) of every metric with a margin
    split: Annotated[float, Field(gt=0, lt=1)] = 0.5
    panel: dict[Name, int] = {}  # shadow: edge case → requests of it that must have been seen and answered

    @property
    def name(self) -> str:
        return f"{self.kind} {self.weight:g} %"

    @model_validator(mode="after")
    def _weight_fits(self) -> "Step":
        if self.weight <= 0:
            raise ValueError("a step's weight is over 0")
        if self.kind != "shadow" and self.weight != 100 and self.weight > 100 * self.split + 1e-9:
            raise ValueError(f"weight {self.weight:g} is over the split of {100 * self.split:g}; or take 100")
        if self.kind != "ab" and self.split != 0.5:
            raise ValueError("only an `ab` step has a split of its own")
        return self


class Policy(_Part):
    """alpha: the chance, over the whole run, that an equal candidate is rolled back; shared out over the critical
    guardrails by `weight`. power_alpha: of the intervals of everything else."""

    schema_version: Literal[1] = 1
    name: Name
    version: Name
    description: str = ""
    unit: Unit = "user"
    condition: Condition = {}
    advance: Literal["auto", "manual"] = "auto"
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.02
    other_alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    srm_p: Annotated[float, Field(gt=0, lt=1)] = 0.001
    rung_mix_p: Annotated[float, Field(gt=0, lt=1)] = 0.001
    warm_hours: Annotated[float, Field(ge=0)] = 24.0  # the old Bento stays up after a promotion
    evidence: Literal["required", "any"] = "required"  # on the candidate's model versions
    metrics: tuple[Metric, ...] = Field(min_length=1, max_length=100)
    steps: tuple[Step, ...] = Field(min_length=1, max_length=20)

    @model_validator(mode="after")
    def _is_whole(self) -> "Policy":
        names = [m.name for m in self.metrics]
        if len(set(names)) != len(names):
            raise ValueError("two metrics have one name")
        for step in self.steps:
            if unknown := sorted(set(step.metrics) - set(names)):
                raise ValueError(f"step {step.name} names unknown metrics: {', '.join(unknown)}")
        kinds = [s.kind for s in self.steps]
        if "shadow" in kinds[1:]:
            raise ValueError("a shadow step comes first")
        ramp = [s for s in self.steps if s.kind != "shadow"]
        weights = [s.weight for s in ramp]
        if weights != sorted(weights):
            raise ValueError("weights never go down: a narrower ramp would move users back")
        if any(s.split != 0.5 for s in ramp) and len([s for s in ramp if s.weight != 100]) > 1:
            raise ValueError("an `ab` step with an uneven split is the only randomised step of its plan")
        return self

    def metric(self, name: str) -> Metric:
        return next(m for m in self.metrics if m.name == name)

    def alpha_of(self, metric: Metric) -> float:
        """α of the metric's always-valid interval: critical guardrails share `alpha`, all others have `other_alpha`."""
        if not metric.critical:
            return self.other_alpha
        whole = sum(m.weight for m in self.metrics if m.critical)
        return self.alpha * metric.weight / whole
