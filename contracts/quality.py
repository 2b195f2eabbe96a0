"""The quality policy: how much worse than the whole a slice may be, the limits of fairness and calibration, and who
answers for the model."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from contracts.documents import read_toml


class SliceLimits(BaseModel):
    """worse_by: share of the whole's figure that a slice may lack. limits: the same for one slice
    (`country=DE`) or one group of slices (`country`), before `worse_by`; 1 exempts it: it is told and not judged."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    worse_by: float = Field(0.5, ge=0, le=1)
    least_users: int = Field(30, ge=2, description="below so many users a slice is not judged")
    limits: dict[str, float] = {
        # Nothing was learned of these, or next to nothing: cold start has figures of its own.
        "item=cold (no event)": 1.0,
        "item=not in the catalogue": 1.0,
        "item_popularity=tail": 1.0,
        # What many wish for is found more often, by any model: among the first ten, the middle has 0.23 (EASE) to 0.49
        # (two-stage trees) of the whole's recall on the synthetic world, and 1.2 in retail.
        "item_popularity=middle": 0.9,
    }

    def of(self, name: str) -> float:
        """The limit of a slice `group=value`."""
        return self.limits.get(name, self.limits.get(name.split("=", 1)[0], self.worse_by))


class FairnessLimits(BaseModel):
    """disparate_impact: the four-fifths rule (EEOC, 29 CFR 1607.4, 1978). enforce: a ratio that is surely below it
    fails; otherwise it is inconclusive, for people to judge."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    disparate_impact: float = Field(0.8, ge=0, le=1)
    least_users: int = Field(30, ge=2, description="a group with fewer has no part in a ratio")
    enforce: bool = False


class CalibrationLimits(BaseModel):
    """ece_of_base_rate: calibration error as a share of the base rate, as candidates are rarely positive."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ece_of_base_rate: float = Field(0.5, gt=0)
    least_positives: int = Field(50, ge=1)


class Escalation(BaseModel):
    """Who is called when a model does harm, and what they do. owner: a team or a role, as in the monitoring schema.
    contact: how to reach a person; without one the readiness check `escalation` is inconclusive. runbook: in the
    repository, or at an https address."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    owner: str = Field("ranking", min_length=1)
    contact: str = ""
    runbook: str = Field("docs/runbooks/roll-back.md", min_length=1)


class QualityPolicy(BaseModel):
    """One document. Without one these defaults hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slices: SliceLimits = SliceLimits()
    fairness: FairnessLimits = FairnessLimits()
    calibration: CalibrationLimits = CalibrationLimits()
    escalation: Escalation = Escalation()

    @classmethod
    def read(cls, path: Path | None) -> "QualityPolicy":
        """The defaults without a path.

        Raises:
            DataError: missing, not TOML, an unknown key, or a value out of range.
        """
        return cls() if path is None else read_toml(cls, path, "quality policy")
