"""Who gets what: a routing table compiled once, then asked per request.

`features_of` turns the table into GrowthBook features: plain JSON, by which its other SDKs give the same arms (but for
units with characters beyond U+FFFF, which those of JavaScript hash as two).
`Assigner` walks those same rules with the SDK's own functions for conditions, hash and ranges; what it leaves out is
the SDK's machinery round them (tracking, sticky buckets, prerequisites). A property test holds both equal.

Pure and without a lock: safe from any thread and any task.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from growthbook import core

from bentos.gateway.hashing import (
    HASH_VERSION,
    Ranges,
    bucket_ranges,
    choose_variation,
    gbhash,
    holdout_seed,
    layer_seed,
)
from contracts.conditions import PRESENT, guarded
from contracts.errors import Refused
from contracts.routing import (
    Condition,
    ExperimentRoute,
    Flag,
    Holdout,
    Overrides,
    Pass,
    ReleaseRoute,
    RoutingTable,
    Target,
    Unit,
)
from contracts.serving import SOURCES, Variant

ATTRIBUTES: Mapping[Unit, str] = {"user": "user_id", "session": "session", "device": "device_id"}


@dataclass(frozen=True, slots=True)
class Assignment:
    """
    variant: of the release. target: who answers for it; None while the table has no champion.
    unit: the value that was hashed for the release; the user's id where there is none.
    probability: of `variant`, for a unit as eligible as this one. 1 where nothing was drawn.
    experiments: id → arm; the release is in it (`candidate`, `control`) with a weight: also at 100, where its answers
    are judged by absolute limits.
    rules, sources_off: what flags and experiments change; a rules digest of the target is not in it.
    shadow_eligible: whether the release may see a copy; its share is drawn by request, not here, since a shadow
    measures answers and not people, and no user should meet all of its cost.
    forced: by a tester's pass, so no evidence.
    """

    variant: Variant
    target: Target | None
    unit: str
    probability: float = 1.0
    experiments: Mapping[str, str] = field(default_factory=dict)
    rules: str | None = None
    sources_off: tuple[str, ...] = ()
    shadow_eligible: bool = False
    forced: bool = False

    @property
    def overrides(self) -> Overrides:
        """With the rules of the target, where no flag and no experiment says otherwise."""
        rules = self.rules or (self.target.rules if self.target else None)
        return Overrides.model_validate({"rules": rules, "sources_off": self.sources_off})


class Assigner:
    """Of one table.

    Raises:
        Refused: the table names a rule that cannot be evaluated.
    """

    def __init__(self, table: RoutingTable) -> None:
        try:
            features = features_of(table)
            rules = {key: _Rule.of(f["rules"][0]) for key, f in features.items() if f["rules"]}
        except (ValueError, TypeError, KeyError) as error:
            raise Refused(f"table {table.name} cannot be evaluated: {error}") from error
        self._champion = table.champion
        self._release = release = table.release
        self._release_rule = self._shadow_rule = None
        if release is not None:
            self._release_rule = rules.get(release.id)
            self._shadow_rule = rules.get(shadow_key(release))
        self._candidate = release.candidate if release and release.candidate.bento in table.bentos else None
        self._unit = ATTRIBUTES[release.unit] if release else "user_id"
        self._routed = release is not None and release.weight > 0
        self._probability = _probabilities(release)
        self._experiments = tuple((e.id, rules[e.id], e.treatment) for e in table.experiments)
        self._flags = tuple((f.id, rules[f.id], f.on) for f in table.flags)
        self._plain = release is None and not table.experiments and not table.flags

    def assign(self, user_id: str, context: Mapping[str, str], tester: Pass | None = None) -> Assignment:
        if self._plain:
            return Assignment("champion", self._champion, user_id, forced=tester is not None)
        attributes: dict[str, str] = {**context, "user_id": user_id}  # a context cannot pose as another user
        arms: dict[str, str] = {}
        variant, probability = self._variant(attributes, tester, arms)
        rules, sources_off = self._changes(attributes, tester, arms)
        return Assignment(
            variant,
            self._candidate if variant == "candidate" else self._champion,
            attributes.get(self._unit) or user_id,
            probability,
            arms,
            rules,
            sources_off,
            self._shadow_rule is not None and self._shadow_rule.value(attributes) is not None,
            tester is not None,
        )

    def _variant(self, attributes: dict[str, str], tester: Pass | None, arms: dict[str, str]) -> tuple[Variant, float]:
        release = self._release
        if release is None:
            return "champion", 1.0
        if tester is not None and tester.variant is not None:
            if tester.variant == "candidate" and self._candidate is None:
                return "champion", 1.0  # it is not up
            return tester.variant, 1.0
        rule = self._release_rule
        if rule is None or not rule.admits(attributes):
            return "champion", 1.0
        arm = rule.draw(attributes)
        if arm is None:
            return "champion", self._probability["champion"]
        if self._routed:
            arms[release.id] = arm
        variant: Variant = "candidate" if arm == "candidate" else "control"
        return variant, self._probability[variant]

    def _changes(
        self, attributes: dict[str, str], tester: Pass | None, arms: dict[str, str]
    ) -> tuple[str | None, tuple[str, ...]]:
        """Experiments come before flags, and what stands first in the table wins: one rules document holds at a time.
        Sources go off one after the other; what would leave none is passed over."""
        rules: str | None = None
        off: tuple[str, ...] = ()
        for id_, rule, treatment in self._experiments:
            arm = tester.experiments.get(id_) if tester is not None else None
            if arm not in ("control", "treatment"):
                arm = rule.value(attributes)
            if arm is None:
                continue
            arms[id_] = arm
            if arm == "treatment":
                rules, off = _with(rules, off, treatment)
        for id_, rule, on in self._flags:
            is_on = tester.flags.get(id_) if tester is not None else None
            if is_on is None:
                is_on = rule.value(attributes) is not None
            if is_on:
                rules, off = _with(rules, off, on)
        return rules, off


def features_of(table: RoutingTable) -> dict[str, Any]:
    """GrowthBook features of the table, for any SDK. Attributes: the request's context as it is, and `user_id`.

    Values: of the release its variant, of an experiment `treatment`, `control` or null, of a flag true or false, of
    `ID:shadow` whether the release may see a copy.
    """
    features: dict[str, Any] = {}
    if (release := table.release) is not None:
        features[release.id] = _feature("champion", _release_rule(release, table.holdouts))
        features[shadow_key(release)] = _feature(False, _shadow_rule(release, table.holdouts))
    for experiment in table.experiments:
        features[experiment.id] = _feature(None, _experiment_rule(experiment, table.holdouts))
    for flag in table.flags:
        features[flag.id] = _feature(False, _flag_rule(flag))
    return features


def shadow_key(release: ReleaseRoute) -> str:
    return f"{release.id}:shadow"  # ids have no colon


def _feature(default: Any, rule: dict[str, Any] | None) -> dict[str, Any]:
    return {"defaultValue": default, "rules": [rule] if rule else []}


def _release_rule(release: ReleaseRoute, holdouts: tuple[Holdout, ...]) -> dict[str, Any] | None:
    if release.weight == 0:
        return None
    if release.weight == 100:  # all who are eligible; holdouts are over by then
        return {"force": "candidate", "condition": guarded(release.condition)}
    return {
        "key": release.id,
        "variations": ["candidate", "control"],
        "meta": [{"key": "candidate"}, {"key": "control"}],
        "weights": [release.split, 1 - release.split],
        "coverage": release.coverage,
        **_seeded(release.id, release.unit),
        "condition": _admission(release.condition, holdouts),
        "filters": _filters(holdouts),
    }


def _shadow_rule(release: ReleaseRoute, holdouts: tuple[Holdout, ...]) -> dict[str, Any] | None:
    if release.shadow == 0:
        return None
    return {"force": True, "condition": _admission(release.condition, holdouts), "filters": _filters(holdouts)}


def _experiment_rule(experiment: ExperimentRoute, holdouts: tuple[Holdout, ...]) -> dict[str, Any]:
    slot = {
        "seed": layer_seed(experiment.layer),
        "attribute": ATTRIBUTES[experiment.unit],
        "hashVersion": HASH_VERSION,
        "ranges": [list(experiment.slot)],
    }
    return {
        "key": experiment.id,
        "variations": ["treatment", "control"],
        "meta": [{"key": "treatment"}, {"key": "control"}],
        "weights": [experiment.split, 1 - experiment.split],
        "coverage": experiment.coverage,
        **_seeded(experiment.id, experiment.unit),
        "condition": _admission(experiment.condition, holdouts, experiment.unit),
        "filters": [slot, *_filters(holdouts)],
    }


def _flag_rule(flag: Flag) -> dict[str, Any]:
    """`range` and not `coverage`: whether its bound counts differs between versions of the SDK."""
    return {
        "force": True,
        "range": [0, flag.coverage],
        **_seeded(flag.id, flag.unit),
        "condition": guarded(flag.condition),
    }


def _seeded(seed: str, unit: Unit) -> dict[str, Any]:
    return {"seed": seed, "hashVersion": HASH_VERSION, "hashAttribute": ATTRIBUTES[unit]}


def _filters(holdouts: tuple[Holdout, ...]) -> list[dict[str, Any]]:
    """Each lets all through but the held out."""
    return [
        {
            "seed": holdout_seed(h.id),
            "attribute": ATTRIBUTES[h.unit],
            "hashVersion": HASH_VERSION,
            "ranges": [[h.share, 1]],
        }
        for h in holdouts
    ]


def _admission(condition: Condition, holdouts: tuple[Holdout, ...], unit: Unit = "user") -> dict[str, Any]:
    """The condition, and the units by which one may be held out: who does not name his device may be held out by it,
    and SDKs differ in what a filter on a missing attribute says."""
    named = sorted({ATTRIBUTES[u] for u in (unit, *(h.unit for h in holdouts))} - {"user_id"})
    there = [{name: {"$exists": True, "$ne": ""}} for name in named]
    inner = guarded(condition)
    return {"$and": [*there, inner] if inner else there} if there else inner


def _with(rules: str | None, off: tuple[str, ...], more: Overrides) -> tuple[str | None, tuple[str, ...]]:
    added = tuple(s for s in more.sources_off if s not in off)
    if len(off) + len(added) < len(SOURCES):
        off += added
    return rules or more.rules, off


def _probabilities(release: ReleaseRoute | None) -> dict[Variant, float]:
    if release is None or release.weight == 100:
        return {"champion": 1.0, "candidate": 1.0, "control": 1.0}
    candidate = release.coverage * release.split
    control = release.coverage - candidate
    return {"champion": 1 - release.coverage, "candidate": candidate, "control": control}


def _parts(condition: dict[str, Any]) -> list[dict[str, Any]]:
    """Conditions that hold together where the one does: what `guarded` and `_admission` joined, apart again."""
    if list(condition) != ["$and"]:
        return [condition] if condition else []
    return [part for joined in condition["$and"] for part in _parts(joined)]


@dataclass(frozen=True, slots=True)
class _Filter:
    attribute: str
    seed: str
    ranges: Ranges


@dataclass(frozen=True, slots=True)
class _Rule:
    """A GrowthBook rule, read once. seed None: nothing is drawn, all who are admitted get the one value."""

    needs: tuple[str, ...]  # attributes that must be there, of the condition
    conditions: tuple[dict[str, Any], ...]  # the rest of it, all of which must hold
    filters: tuple[_Filter, ...]
    attribute: str
    seed: str | None
    ranges: Ranges
    values: tuple[Any, ...]

    @classmethod
    def of(cls, rule: dict[str, Any]) -> "_Rule":
        filters = tuple(
            _Filter(f["attribute"], f["seed"], [(low, high) for low, high in f["ranges"]])
            for f in rule.get("filters", ())
            if f["ranges"] != [[0, 1]]  # all of them
        )
        seed, attribute = rule.get("seed"), rule.get("hashAttribute", "")
        if "variations" in rule:
            ranges = bucket_ranges(rule["weights"], rule["coverage"])
            values = tuple(rule["variations"])
        else:
            ranges = [tuple(rule["range"])] if seed is not None else []
            values = (rule["force"],)
        parts = _parts(rule["condition"])
        needs = tuple(name for part in parts for name in part if part == {name: PRESENT})
        rest = tuple(part for part in parts if list(part.values()) != [PRESENT])
        return cls(needs, rest, filters, attribute, seed, ranges, values)

    def admits(self, attributes: dict[str, str]) -> bool:
        """Condition, units there, not filtered out."""
        for name in self.needs:
            if name not in attributes:
                return False
        for condition in self.conditions:
            if not core.evalCondition(attributes, condition):
                return False
        if self.seed is not None and not attributes.get(self.attribute):
            return False
        for f in self.filters:
            n = gbhash(f.seed, attributes[f.attribute])
            if choose_variation(n, f.ranges) < 0:
                return False
        return True

    def draw(self, attributes: dict[str, str]) -> Any:
        """For who is admitted: a value, or None when drawn into none."""
        if self.seed is None:
            return self.values[0]
        chosen = choose_variation(gbhash(self.seed, attributes[self.attribute]), self.ranges)
        return None if chosen < 0 else self.values[chosen]

    def value(self, attributes: dict[str, str]) -> Any:
        return self.draw(attributes) if self.admits(attributes) else None
