"""Evidence: what is known about a model version, as checks with three verdicts."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from contracts.checklist import absent

Verdict = Literal["pass", "fail", "inconclusive"]


class Check(BaseModel):
    """One check. `inconclusive` also says that nothing is known: missing data is never a pass.

    advisory: it is told for people to weigh. Its failure counts as any; that it is inconclusive holds nothing up, since
    on most logs it will always be (newcomers are few, a ratio of groups is a question and no answer).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    verdict: Verdict
    detail: str
    command: str | None = Field(None, description="what produces this check when it is missing")
    figures: dict[str, float] = {}
    advisory: bool = False

    @property
    def holds_up(self) -> bool:
        """Whether a release waits for it."""
        return self.verdict == "fail" or (self.verdict == "inconclusive" and not self.advisory)


class Evidence(BaseModel):
    """The document that a model version carries as `evidence.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    model: str
    run_id: str
    created_at: str
    checks: tuple[Check, ...]
    context: dict[str, Any] = {}

    @property
    def readiness(self) -> Verdict:
        return readiness(self.model, self.checks)


def readiness(model: str, checks: Sequence[Check], later: Sequence[str] = ()) -> Verdict:
    """`fail` if one fails, else `inconclusive` if one is or one of the checklist is not there, else `pass`.

    later: checks that are made after this is asked.
    """
    verdicts = {check.verdict for check in checks if check.holds_up}
    if "fail" in verdicts:
        return "fail"
    lacking = verdicts or not checks or absent(model, (*later, *(check.name for check in checks)))
    return "inconclusive" if lacking else "pass"
