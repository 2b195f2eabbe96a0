"""The routing table: all that a gateway knows. The controller writes it, signed; gateways read this and never SQL.

    control/routing.json            the table, replaced by atomic rename
    control/routing.override.json   a signed order of `release rollback --break-glass`, until a table has adopted it
    control/routing.pub             the public key that both must be signed with

Nothing is implicit: who gets what follows from the table, the unit and the request's context alone.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from contracts.conditions import checked
from contracts.rules import RulesDocument
from contracts.serving import SOURCES

Unit = Literal["user", "session", "device"]  # `user_id`, `context["session"]`, `context["device_id"]`
Percent = Annotated[float, Field(ge=0, le=100)]
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
# A GrowthBook condition on the request's context; an attribute that it names and the context lacks: not eligible.
Condition = Annotated[dict[str, Any], AfterValidator(checked)]

ROUTING, OVERRIDE, PUBLIC_KEY = "routing.json", "routing.override.json", "routing.pub"
MAX_PASS_BYTES = 2048  # of the header `x-streamrec-pass`


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Overrides(_Part):
    """What a flag, an experiment or a rules release changes for one request, inside the Bento that answers."""

    rules: str | None = Field(None, description="digest of a document in the table; the Bento's own when unset")
    sources_off: tuple[Literal["two_tower", "graph", "content", "trending", "item_item"], ...] = ()

    @model_validator(mode="after")
    def _one_source_stays(self) -> "Overrides":
        if set(self.sources_off) == set(SOURCES):
            raise ValueError("`sources_off` leaves no source")
        return self


class Target(_Part):
    """What can answer: a Bento, and the rules document that it answers by (a digest; its own when unset)."""

    bento: str = Field(min_length=1, max_length=256)
    rules: str | None = None


class Upstream(_Part):
    """Where a Bento listens: `http://HOST:PORT`, or `unix:/PATH`. Only ready ones are in the table."""

    urls: tuple[str, ...] = Field(min_length=1, max_length=256)


class ReleaseRoute(_Part):
    """The release under way.

    weight: percent of the eligible units on the candidate. Up to 50, just as many are its concurrent control, and the
    rest is `champion`: coverage is 2 × weight at a fixed 50:50, so that a wider ramp moves nobody between arms. At 100
    all are on the candidate. split: the candidate's share of the covered; other than 0.5 only for a plan whose one
    randomised step it is. shadow: percent of requests that are mirrored to the candidate.
    """

    id: Name  # the seed of the assignment
    step: str
    candidate: Target
    unit: Unit = "user"
    weight: Percent = 0
    split: Annotated[float, Field(gt=0, lt=1)] = 0.5
    shadow: Percent = 0
    condition: Condition = {}

    @property
    def coverage(self) -> float:
        """Share of the eligible units that are in the comparison, 0 to 1."""
        return min(1.0, self.weight / 100 / self.split)

    @model_validator(mode="after")
    def _weight_is_a_ramp(self) -> "ReleaseRoute":
        if self.weight != 100 and self.weight > 100 * self.split + 1e-9:
            raise ValueError(f"weight {self.weight:g} is over the split of {100 * self.split:g}; or take 100")
        return self


class ExperimentRoute(_Part):
    """Two arms, `control` and `treatment`. layer and slot: experiments of one layer with slots apart share no unit."""

    id: Name
    unit: Unit = "user"
    treatment: Overrides
    coverage: Share = 1.0
    split: Annotated[float, Field(gt=0, lt=1)] = 0.5  # the treatment's share of the covered
    condition: Condition = {}
    layer: Name = "default"
    slot: tuple[Share, Share] = (0.0, 1.0)

    @model_validator(mode="after")
    def _slot_is_a_range(self) -> "ExperimentRoute":
        if self.slot[0] >= self.slot[1]:
            raise ValueError(f"slot {self.slot[0]:g} to {self.slot[1]:g} has no unit")
        return self


class Holdout(_Part):
    """Units that no release (but one at 100 %) and no experiment touches. slot: of its own hash."""

    id: Name
    unit: Unit = "user"
    share: Share


class Flag(_Part):
    """Switches a source, a rule or a rules document per request; `coverage` of the eligible units have it on."""

    id: Name
    on: Overrides
    unit: Unit = "user"
    coverage: Share = 1.0
    condition: Condition = {}


class Consumer(_Part):
    """Who may call: SHA-256 of the key (a key has 256 random bits), and how often, over all gateway processes."""

    name: Name
    key_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    rate_per_s: Annotated[float, Field(gt=0)] | None = None
    burst: Annotated[int, Field(ge=1)] = 100


class RoutingTable(_Part):
    """epoch: of the writer's lease; version: of the table. Gateways refuse a lesser (epoch, version)."""

    schema_version: Literal[1] = 1
    epoch: int = Field(ge=0)
    version: int = Field(ge=0)
    written_at: str
    champion: Target | None
    previous: Target | None = None  # whom a break-glass order goes back to once the release is promoted
    bentos: dict[str, Upstream] = {}  # ready ones, by tag
    release: ReleaseRoute | None = None
    experiments: tuple[ExperimentRoute, ...] = Field((), max_length=100)
    holdouts: tuple[Holdout, ...] = Field((), max_length=20)
    flags: tuple[Flag, ...] = Field((), max_length=100)
    rules: dict[str, RulesDocument] = {}  # by digest
    consumers: tuple[Consumer, ...] = Field((), max_length=1000)  # none: no key is asked for
    gateway_processes: int = Field(1, ge=1, le=256)  # rates are shared out over them
    adopted: tuple[str, ...] = ()  # ids of break-glass orders that are in this table already

    @property
    def name(self) -> str:
        """For exposures: `epoch.version`."""
        return f"{self.epoch}.{self.version}"

    @model_validator(mode="after")
    def _all_that_is_named_is_there(self) -> "RoutingTable":
        targets = [t for t in (self.champion, self.previous, self.release and self.release.candidate) if t]
        digests = [t.rules for t in targets] + [e.treatment.rules for e in self.experiments]
        digests += [f.on.rules for f in self.flags]
        if missing := {d for d in digests if d is not None} - set(self.rules):
            raise ValueError(f"no rules document {', '.join(sorted(missing))}")
        if wrong := [d for d, document in self.rules.items() if document.digest != d]:
            raise ValueError(f"rules document {', '.join(wrong)} has another digest")
        release = self.release
        if release and (release.weight or release.shadow) and release.candidate.bento not in self.bentos:
            raise ValueError(f"traffic for {release.candidate.bento}, which is not ready")
        ids = [e.id for e in self.experiments] + ([release.id] if release else []) + [f.id for f in self.flags]
        if len(set(ids)) != len(ids):
            raise ValueError("two of the release, the experiments and the flags have one id")
        return self


class BreakGlass(_Part):
    """Everyone to `champion`, no release, whatever the table says, until a table lists `id` in `adopted`."""

    schema_version: Literal[1] = 1
    id: Name
    champion: Target
    actor: str
    reason: str
    written_at: str


class Pass(_Part):
    """For a tester: force a variant of the release, or arms of experiments and flags, until `expires_us`.

    Sent as `x-streamrec-pass`; requests that carry one are not counted as evidence.
    """

    variant: Literal["champion", "candidate", "control"] | None = None
    experiments: dict[str, str] = {}  # id → arm
    flags: dict[str, bool] = {}
    expires_us: int
    name: str = Field("", max_length=64)
