from typing import Any

import pytest

from bentos.gateway.assignment import Assigner, Assignment, features_of
from contracts.routing import ExperimentRoute, Flag, Holdout, Overrides, Pass, RoutingTable
from contracts.serving import SOURCES
from tests.unit.gateway.routed import LOOSE, NEW, OLD, STRICT, release, table

USERS = [f"u{i}" for i in range(2000)]
OFF = Overrides(sources_off=("graph",))


def assign(
    of: RoutingTable, user: str = "u1", context: dict[str, str] | None = None, tester: Pass | None = None
) -> Assignment:
    return Assigner(of).assign(user, context or {}, tester)


def variants(of: RoutingTable, context: dict[str, str] | None = None) -> set[str]:
    assigner = Assigner(of)
    return {assigner.assign(u, context or {}).variant for u in USERS}


def forced(**more: Any) -> Pass:
    return Pass(expires_us=1, **more)


def test_without_a_release_everyone_is_on_the_champion() -> None:
    assert assign(table()) == Assignment("champion", OLD, "u1")


def test_a_table_without_a_champion_gives_no_target() -> None:
    assert assign(table(champion=None)).target is None


def test_the_control_is_served_by_the_champion_and_the_candidate_by_itself() -> None:
    assigner = Assigner(table(release=release(weight=50)))
    for user in USERS[:100]:
        assigned = assigner.assign(user, {})
        assert assigned.target == (NEW if assigned.variant == "candidate" else OLD)
        assert assigned.experiments == {"r-1": assigned.variant}


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        ({"weight": 5}, {"candidate": 0.05, "control": 0.05, "champion": 0.9}),
        ({"weight": 50}, {"candidate": 0.5, "control": 0.5}),
        ({"weight": 100}, {"candidate": 1.0}),
        ({"weight": 10, "split": 0.2}, {"candidate": 0.1, "control": 0.4, "champion": 0.5}),
    ],
)
def test_the_probability_is_that_of_the_assigned_variant(route: Any, expected: dict[str, float]) -> None:
    assigner = Assigner(table(release=release(**route)))
    seen = {a.variant: a.probability for a in (assigner.assign(u, {}) for u in USERS)}
    assert seen == pytest.approx(expected)


def test_at_100_everyone_is_on_the_candidate_and_counted_there() -> None:
    assigned = assign(table(release=release(weight=100)))
    assert (assigned.variant, assigned.target, assigned.experiments) == ("candidate", NEW, {"r-1": "candidate"})


def test_at_100_who_is_not_eligible_stays_with_the_champion() -> None:
    of = table(release=release(weight=100, condition={"country": "DE"}))
    assert variants(of, {"country": "DE"}) == {"candidate"}
    assert variants(of, {"country": "FR"}) == {"champion"}
    assert variants(of) == {"champion"}


@pytest.mark.parametrize(
    "condition",
    [
        {"country": "DE"},
        {"country": {"$ne": "DE"}},
        {"country": {"$nin": ["DE"]}},
        {"country": {"$not": {"$eq": "DE"}}},
        {"country": {"$not": {"$regex": "^D"}}},
        {"country": {"$vne": "1.2"}},
        {"$not": {"country": "DE"}},
        {"$nor": [{"country": "DE"}]},
        {"$or": [{"device": "tv"}, {"country": "DE"}]},
        {"country": {"$lt": 9}},
        {"country": {"$vlt": "9"}},
    ],
)
def test_a_missing_attribute_that_a_condition_names_is_not_eligible(condition: dict[str, Any]) -> None:
    of = table(release=release(weight=50, condition=condition))
    assert variants(of, {"device": "tv"}) == {"champion"}


def test_absence_is_asked_for_by_exists_false_alone() -> None:
    of = table(release=release(weight=50, condition={"country": {"$exists": False}}))
    assert variants(of) == {"candidate", "control"}
    assert variants(of, {"country": "DE"}) == {"champion"}
    either = {"$or": [{"country": {"$exists": False}}, {"country": {"$ne": "DE"}}]}
    of = table(release=release(weight=50, condition=either))
    assert variants(of) == variants(of, {"country": "FR"}) == {"candidate", "control"}
    assert variants(of, {"country": "DE"}) == {"champion"}


@pytest.mark.parametrize(
    ("value", "eligible"),
    [("31", True), ("30", False), ("9", False), ("30.5", True), ("-40", False), ("1000000", True)]
    + [(v, False) for v in ("nan", "inf", "1e9", "", " 45", "45 ", "45\n", "4_5", "many", "0x99", "٤٥")],
)
def test_numbers_are_compared_as_numbers_and_what_is_none_is_not_eligible(value: str, eligible: bool) -> None:
    of = table(release=release(weight=50, condition={"tenure": {"$gt": 30}}))
    assert ("candidate" in variants(of, {"tenure": value})) is eligible


@pytest.mark.parametrize(
    ("value", "eligible"), [("1.9.0", False), ("1.10.0", True), ("2", True), ("1.10.0-rc.1", False)]
)
def test_versions_are_compared_as_versions(value: str, eligible: bool) -> None:
    of = table(release=release(weight=50, condition={"app_version": {"$vgte": "1.10.0"}}))
    assert ("candidate" in variants(of, {"app_version": value})) is eligible


def test_a_context_cannot_pose_as_another_user() -> None:
    of = table(release=release(weight=50))
    assigner = Assigner(of)
    for user in USERS[:200]:
        assert assigner.assign(user, {"user_id": "u1", "id": "u1"}) == assigner.assign(user, {})


@pytest.mark.parametrize(("unit", "key"), [("session", "session"), ("device", "device_id")])
def test_another_unit_is_hashed_by_its_own_value_and_is_out_when_missing(unit: str, key: str) -> None:
    assigner = Assigner(table(release=release(weight=50, unit=unit)))
    by_user = Assigner(table(release=release(weight=50)))
    for value in USERS[:200]:
        assigned = assigner.assign("someone", {key: value})
        assert (assigned.variant, assigned.unit) == (by_user.assign(value, {}).variant, value)
    for context in ({}, {key: ""}):
        assigned = assigner.assign("someone", context)
        assert (assigned.variant, assigned.unit, assigned.experiments) == ("champion", "someone", {})


def test_a_holdout_by_device_keeps_those_out_who_name_no_device() -> None:
    of = table(release=release(weight=50, shadow=1), holdouts=(Holdout(id="h", unit="device", share=0.01),))
    assert variants(of) == variants(of, {"device_id": ""}) == {"champion"}
    assert "candidate" in variants(of, {"device_id": "phone"})
    assert not assign(of).shadow_eligible


def test_a_shadow_sees_the_eligible_alone() -> None:
    of = table(release=release(shadow=10, condition={"country": "DE"}))
    assert assign(of, context={"country": "DE"}).shadow_eligible
    assert not assign(of, context={"country": "FR"}).shadow_eligible
    assert assign(of, context={"country": "DE"}).variant == "champion"
    assert not assign(table(release=release(weight=5))).shadow_eligible


def test_the_first_experiment_of_the_table_decides_the_rules_and_sources_add_up() -> None:
    def experiment(id_: str, **treatment: Any) -> ExperimentRoute:
        return ExperimentRoute(id=id_, treatment=Overrides(**treatment), split=0.999, layer=id_)

    of = table(
        champion=OLD.model_copy(update={"rules": LOOSE.digest}),
        experiments=(experiment("a", rules=STRICT.digest), experiment("b", rules=LOOSE.digest, sources_off=("graph",))),
        flags=(Flag(id="f", on=Overrides(sources_off=("content",))),),
    )
    assigned = assign(of)
    assert assigned.experiments == {"a": "treatment", "b": "treatment"}
    assert (assigned.rules, assigned.sources_off) == (STRICT.digest, ("graph", "content"))
    assert assigned.overrides == Overrides(rules=STRICT.digest, sources_off=("graph", "content"))


def test_without_overrides_the_targets_own_rules_hold() -> None:
    of = table(champion=OLD.model_copy(update={"rules": LOOSE.digest}))
    assert assign(of).rules is None
    assert assign(of).overrides == Overrides(rules=LOOSE.digest)


def test_flags_together_never_switch_off_the_last_source() -> None:
    flags = tuple(Flag(id=f"off-{s}", on=Overrides(sources_off=(s,))) for s in SOURCES)
    assert assign(table(flags=flags)).sources_off == SOURCES[:-1]


@pytest.mark.parametrize(("coverage", "share"), [(0.0, 0.0), (0.25, 0.25), (1.0, 1.0)])
def test_a_flag_is_on_for_its_coverage(coverage: float, share: float) -> None:
    assigner = Assigner(table(flags=(Flag(id="f", on=OFF, coverage=coverage),)))
    on = sum(assigner.assign(u, {}).sources_off == ("graph",) for u in USERS)
    assert abs(on - share * 2000) <= 3 * (2000 * share * (1 - share)) ** 0.5


def test_a_pass_forces_the_variant_of_the_release() -> None:
    of = table(release=release(weight=1))
    for variant, target in (("candidate", NEW), ("control", OLD), ("champion", OLD)):
        assigned = assign(of, tester=forced(variant=variant))
        assert (assigned.variant, assigned.target, assigned.probability, assigned.forced) == (
            variant,
            target,
            1.0,
            True,
        )
        assert "r-1" not in assigned.experiments


def test_a_pass_reaches_a_candidate_that_nobody_else_reaches() -> None:
    of = table(release=release(weight=0, condition={"country": "DE"}))
    assert assign(of, tester=forced(variant="candidate")).target == NEW


def test_a_pass_for_a_candidate_that_is_not_up_gives_the_champion() -> None:
    of = table(release=release(weight=0), bentos={})
    assert assign(of, tester=forced(variant="candidate")).target == OLD


def test_a_pass_forces_arms_and_flags_and_leaves_the_rest() -> None:
    of = table(
        experiments=(ExperimentRoute(id="e", treatment=OFF), ExperimentRoute(id="other", treatment=OFF, layer="o")),
        flags=(Flag(id="f", on=Overrides(rules=STRICT.digest)), Flag(id="g", on=Overrides(rules=LOOSE.digest))),
    )
    for user in USERS[:50]:
        own = assign(of, user).experiments["other"]
        got = assign(of, user, tester=forced(experiments={"e": "control", "gone": "treatment"}, flags={"f": False}))
        assert (got.experiments, got.rules, got.forced) == ({"e": "control", "other": own}, LOOSE.digest, True)


def test_a_pass_of_any_kind_makes_the_request_no_evidence() -> None:
    assert assign(table(), tester=forced()).forced
    assert assign(table(release=release(weight=5)), tester=forced()).forced


def test_features_are_json_for_any_sdk() -> None:
    of = table(
        release=release(weight=5, shadow=2, condition={"country": "DE"}),
        experiments=(ExperimentRoute(id="e", treatment=OFF),),
        holdouts=(Holdout(id="h", share=0.05),),
        flags=(Flag(id="f", on=OFF, coverage=0.5),),
    )
    features = features_of(of)
    assert set(features) == {"r-1", "r-1:shadow", "e", "f"}
    assert features["r-1"]["rules"] == [
        {
            "key": "r-1",
            "variations": ["candidate", "control"],
            "meta": [{"key": "candidate"}, {"key": "control"}],
            "weights": [0.5, 0.5],
            "coverage": 0.1,
            "seed": "r-1",
            "hashVersion": 2,
            "hashAttribute": "user_id",
            "condition": {"$and": [{"country": {"$exists": True}}, {"country": "DE"}]},
            "filters": [{"seed": "holdout:h", "attribute": "user_id", "hashVersion": 2, "ranges": [[0.05, 1]]}],
        }
    ]
