"""What a release is, and what the control database holds, as frozen values. `machine.py` moves them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from contracts.measurements import MetricVerdict
from contracts.routing import Consumer, ExperimentRoute, Flag, Holdout, Target
from contracts.rules import RulesDocument
from registry.releases.policy import Policy, Step

State = Literal["created", "shadow", "canary", "ab", "promoted", "paused", "rolled_back", "superseded"]
ACTIVE: frozenset[State] = frozenset({"created", "shadow", "canary", "ab", "paused"})


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PolicyText(_Value):
    """The policy as it was when the release started."""

    name: str
    version: str
    sha256: str  # of the text
    text: str  # TOML

    @property
    def label(self) -> str:
        return f"{self.name}@{self.version}"


class Release(_Value):
    """One release, from start to end.

    champion: who it was started against, and to whom a rollback goes; it stays armed as long as the release can be
    rolled back. step: index into `policy.steps`, -1 before the first. since_us: when the current analysis began
    (evidence accumulates over the 1:1 ramps from the first randomised step; a changed policy opens a new one).
    """

    id: str
    kind: Literal["bento", "rules"] = "bento"
    candidate: Target
    champion: Target | None
    policy_text: PolicyText
    policy: Policy
    hypothesis: str = ""
    state: State = "created"
    paused_from: State | None = None
    paused_us: int | None = None  # when; the clock of the step stands still while paused
    step: int = -1
    created_us: int
    step_since_us: int  # of the step
    since_us: int  # of the analysis
    ended_us: int | None = None
    reason: str = ""  # of the last transition
    verdicts: tuple[MetricVerdict, ...] = ()  # of the last decision in this step
    skipped: tuple[str, ...] = ()  # steps that a person jumped over
    waived: tuple[str, ...] = ()  # failed verdicts that a person has seen and resumed from: they do not pause again
    actor: str = ""

    @property
    def current(self) -> Step | None:
        return self.policy.steps[self.step] if 0 <= self.step < len(self.policy.steps) else None

    @property
    def active(self) -> bool:
        return self.state in ACTIVE


class Warm(_Value):
    """A Bento that is kept up though nobody is sent to it, so that a rollback is instant."""

    target: Target
    until_us: int


class ControlState(_Value):
    """All that decides routing. One row, moved by compare-and-swap on `version`.

    champion: the one truth of who is champion. previous: who a rollback of a promoted release goes back to; set exactly
    while that is armed. release: the last one, active or ended. ended: one that the last transition ended and that is
    not in `release` any more, for the history.
    seen_us: the latest moment that any transition saw; time never runs backwards for a release.
    """

    version: int = 0
    champion: Target | None = None
    previous: Target | None = None
    release: Release | None = None
    ended: Release | None = None
    warm: tuple[Warm, ...] = ()
    rules: dict[str, RulesDocument] = {}
    experiments: tuple[ExperimentRoute, ...] = ()
    holdouts: tuple[Holdout, ...] = ()
    flags: tuple[Flag, ...] = ()
    consumers: tuple[Consumer, ...] = ()
    adopted: tuple[str, ...] = ()
    seen_us: int = 0

    @property
    def live(self) -> tuple[str, ...]:
        """Bentos that must be up: champion, candidate, what is warm. Each once, the champion first."""
        release = self.release
        targets = [self.champion]
        if release and release.active:
            targets += [release.candidate, release.champion]
        targets += [w.target for w in self.warm]
        return tuple(dict.fromkeys(t.bento for t in targets if t))


class Start(_Value):
    """champion unset in the state: the candidate is promoted after a smoke test, without steps."""

    kind: Literal["start"] = "start"
    id: str
    release_kind: Literal["bento", "rules"] = "bento"
    candidate: Target
    rules: RulesDocument | None = None  # of a rules release
    policy_text: PolicyText
    policy: Policy
    hypothesis: str = ""
    supersede: bool = False  # end the active release in favour of this one; else two at once are refused


class Go(_Value):
    """To the first step of `step_kind` (with this weight, when given): `release shadow|canary|ab`, and the controller's
    own next step. Weights never go down."""

    kind: Literal["go"] = "go"
    step_kind: Literal["shadow", "canary", "ab", "next"] = "next"
    weight: float | None = None
    reason: str = ""
    verdicts: tuple[MetricVerdict, ...] = ()


class Promote(_Value):
    """force: an admin's, without the evidence of the steps left; recorded as such."""

    kind: Literal["promote"] = "promote"
    reason: str = ""
    force: bool = False
    verdicts: tuple[MetricVerdict, ...] = ()


class Rollback(_Value):
    kind: Literal["rollback"] = "rollback"
    reason: str = ""
    verdicts: tuple[MetricVerdict, ...] = ()
    adopted: str | None = None  # id of a break-glass order


class Pause(_Value):
    kind: Literal["pause"] = "pause"
    reason: str = ""
    verdicts: tuple[MetricVerdict, ...] = ()


class Resume(_Value):
    kind: Literal["resume"] = "resume"
    reason: str = ""


class Note(_Value):
    """The verdicts of a look that changed nothing else."""

    kind: Literal["note"] = "note"
    reason: str = ""
    verdicts: tuple[MetricVerdict, ...] = ()


Command = Annotated[Start | Go | Promote | Rollback | Pause | Resume | Note, Field(discriminator="kind")]


class Decision(_Value):
    """What the gates say: a command to apply, or None to hold. next: for people, what is waited for."""

    command: Go | Promote | Rollback | Pause | None
    verdicts: tuple[MetricVerdict, ...]
    reason: str
    next: str
