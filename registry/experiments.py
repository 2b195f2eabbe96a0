"""Experiments: what was asked, frozen by hash when it starts, and what was concluded.

The routes that are live are in the control state. All else is in the audit, which nobody can change unseen:
`experiment.create` holds the plan, `experiment.conclude` the decision and the result that it was made on.
"""

import hashlib
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from contracts.errors import NotFound, Refused, UsageError
from contracts.routing import ExperimentRoute
from contracts.rules import RulesDocument
from registry.access import authorise
from registry.control.changing import Change, change
from registry.control.store import Actor, ControlStore
from registry.releases.policy import Metric
from registry.releases.values import ControlState
from registry.slots import allot, free, told

CREATE, CONCLUDE = "experiment.create", "experiment.conclude"
LIST = "streamrec experiment list"
MAX_PLAN = 64_000  # characters: it is kept whole in one entry of the audit
MAX_LIVE = 100  # of a routing table
ALL = 1_000_000  # audit entries


class Plan(BaseModel):
    """The pre-specified part. alpha: of the primary metric's interval; the other metrics share as much by weight.
    share: how much of its layer it takes, at the first free place, in place of a `slot` of the route."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    route: ExperimentRoute
    hypothesis: Annotated[str, Field(min_length=1)]
    metrics: tuple[Metric, ...] = Field(min_length=1, max_length=50)
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    tuning_n: Annotated[int, Field(ge=1)] = 5000
    share: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _one_primary_metric(self) -> "Plan":
        names = [m.name for m in self.metrics]
        if len(set(names)) != len(names):
            raise ValueError("two metrics have one name")
        if sum(m.role == "primary" for m in self.metrics) != 1:
            raise ValueError('exactly one metric has role = "primary"')
        if self.share is not None and "slot" in self.route.model_fields_set:
            raise ValueError("give `share` or the route's `slot`, not both")
        if len(self.model_dump_json()) > MAX_PLAN:
            raise ValueError(f"the plan is over {MAX_PLAN} characters")
        return self

    @property
    def id(self) -> str:
        return self.route.id

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """
        Raises:
            UsageError: not TOML, an unknown key, or a value out of range.
        """
        try:
            return cls.model_validate(tomllib.loads(path.read_text()))
        except FileNotFoundError as error:
            raise NotFound(f"no experiment file {path}", next_command="streamrec experiment create --help") from error
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"experiment file {path}: {error}") from error
        except ValidationError as error:
            problems = "; ".join(f"`{'.'.join(map(str, e['loc']))}`: {e['msg']}" for e in error.errors())
            raise UsageError(
                f"experiment file {path}: {problems}", next_command="streamrec experiment create --help"
            ) from error


class Experiment(BaseModel):
    """One experiment, from start to end. concluded_us: None while its route is live."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    plan: Plan
    sha256: str
    created_us: int
    actor: str
    concluded_us: int | None = None
    decision: str = ""
    result: Mapping[str, Any] = {}

    @property
    def id(self) -> str:
        return self.plan.id

    @property
    def live(self) -> bool:
        return self.concluded_us is None


def create(
    store: ControlStore,
    token: str | None,
    plan: Plan,
    *,
    rules: RulesDocument | None = None,
    now_us: int,
    dry_run: bool = False,
) -> Experiment:
    """Put the route into the state; its users are assigned from the next routing table on.

    rules: the document that the treatment's `rules` digest names, when the state does not have it yet.

    Raises:
        Refused: the id was used before (it is the seed of the assignment), or its slot of the layer is taken.
    """
    actor = authorise(store, token, "releaser", action=CREATE, subject=plan.id, now_us=now_us)
    used = {e.id for e in experiments(store)}
    if plan.share is not None:
        slot = allot(store.load().experiments, plan.route.layer, plan.share)
        plan = plan.model_copy(update={"route": plan.route.model_copy(update={"slot": slot}), "share": None})

    def step(state: ControlState) -> ControlState:
        _demand_room(plan, state, used)
        documents = state.rules | ({rules.digest: rules} if rules else {})
        named = plan.route.treatment.rules
        if named is not None and named not in documents:
            raise Refused(
                f"no rules document {named}", next_command="streamrec experiment create FILE --rules DOCUMENT"
            )
        return state.model_copy(update={"experiments": (*state.experiments, plan.route), "rules": documents})

    experiment = Experiment(plan=plan, sha256=plan.sha256, created_us=now_us, actor=actor.name)
    detail = {"plan": plan.model_dump(mode="json"), "sha256": plan.sha256, "reason": plan.hypothesis}
    _change(store, actor, CREATE, plan.id, step, detail, now_us, dry_run)
    return experiment


def conclude(
    store: ControlStore,
    token: str | None,
    id_: str,
    *,
    decision: str,
    result: Mapping[str, Any],
    now_us: int,
    dry_run: bool = False,
) -> Experiment:
    """Take the route out, and keep the decision with the result that it was made on.

    Raises:
        NotFound: no such experiment.
        Refused: it is concluded already.
    """
    actor = authorise(store, token, "releaser", action=CONCLUDE, subject=id_, now_us=now_us)
    experiment = find(store, id_)

    def step(state: ControlState) -> ControlState:
        if id_ not in {e.id for e in state.experiments}:
            raise Refused(f"experiment {id_} is concluded already", next_command=f"streamrec experiment status {id_}")
        return state.model_copy(update={"experiments": tuple(e for e in state.experiments if e.id != id_)})

    detail = {"decision": decision, "reason": decision, "result": dict(result), "sha256": experiment.sha256}
    _change(store, actor, CONCLUDE, id_, step, detail, now_us, dry_run)
    return experiment.model_copy(update={"concluded_us": now_us, "decision": decision, "result": dict(result)})


def experiments(store: ControlStore, subject: str | None = None) -> list[Experiment]:
    """Newest first."""
    found: dict[str, Experiment] = {}
    for entry in store.history(subject, ALL):
        if entry.action == CREATE:
            found[entry.subject] = Experiment(
                plan=Plan.model_validate(entry.detail["plan"]),
                sha256=entry.detail["sha256"],
                created_us=entry.at_us,
                actor=entry.actor,
            )
        elif entry.action == CONCLUDE and entry.subject in found:
            found[entry.subject] = found[entry.subject].model_copy(
                update={
                    "concluded_us": entry.at_us,
                    "decision": entry.detail["decision"],
                    "result": entry.detail.get("result", entry.detail.get("cut", {})),  # cut: over what an entry holds
                }
            )
    return list(reversed(found.values()))


def find(store: ControlStore, id_: str) -> Experiment:
    """
    Raises:
        NotFound: no such experiment.
    """
    found = experiments(store, id_)
    if not found:
        raise NotFound(f"no experiment {id_}", next_command=LIST)
    return found[0]


def _demand_room(plan: Plan, state: ControlState, used: set[str]) -> None:
    route = plan.route
    taken = {e.id for e in state.experiments} | {f.id for f in state.flags} | used
    if state.release:
        taken.add(state.release.id)
    if route.id in taken:
        raise Refused(f"{route.id} was used before, and it is the seed of the assignment", next_command=LIST)
    if len(state.experiments) >= MAX_LIVE:
        raise Refused(f"{MAX_LIVE} experiments are live: conclude one first", next_command=LIST)
    for other in state.experiments:
        if other.layer != route.layer:
            continue
        if other.unit != route.unit:
            raise Refused(f"layer {route.layer} is by {other.unit}, the experiment by {route.unit}", next_command=LIST)
        if max(other.slot[0], route.slot[0]) < min(other.slot[1], route.slot[1]):
            raise Refused(
                f"experiment {other.id} has {other.slot[0]:g} to {other.slot[1]:g} of layer {route.layer}, "
                f"{told(free(state.experiments, route.layer))}: "
                "give a slot beside it, or a layer of its own if the two may share users",
                next_command=LIST,
            )


def _change(
    store: ControlStore,
    actor: Actor,
    action: str,
    subject: str,
    step: Callable[[ControlState], ControlState],
    detail: dict[str, Any],
    now_us: int,
    dry_run: bool,
) -> None:
    def made(before: ControlState) -> Change:
        after = step(before)
        return Change(after.model_copy(update={"seen_us": max(before.seen_us, now_us)}), subject, detail)

    change(store, actor, action, subject, made, now_us, dry_run=dry_run)
