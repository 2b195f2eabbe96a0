"""An experiment's plan is frozen, its slot its own, and its end kept with the result that it was decided on."""

from pathlib import Path

import pytest

from contracts.errors import NotFound, Refused, UsageError
from contracts.routing import ExperimentRoute, Overrides
from contracts.rules import RulesDocument
from registry import access
from registry.control.memory import MemoryStore
from registry.control.store import Actor
from registry.experiments import Plan, conclude, create, experiments, find
from registry.releases.policy import Metric

CTR = Metric(name="ctr", kind="ctr", direction="higher", role="primary")
NOW = 1_700_000_000_000_000


def plan(id_: str = "a", **route: object) -> Plan:
    treatment = Overrides(sources_off=("trending",))
    return Plan(
        route=ExperimentRoute.model_validate({"id": id_, "treatment": treatment, **route}),
        hypothesis="clicks go up",
        metrics=(CTR,),
    )


def test_a_created_experiment_is_routed_until_it_is_concluded() -> None:
    store = MemoryStore()
    create(store, None, plan(), now_us=NOW)
    assert [e.id for e in store.load().experiments] == ["a"]
    assert find(store, "a").live
    ended = conclude(store, None, "a", decision="ship", result={"effect": 0.01}, now_us=NOW + 5)
    assert store.load().experiments == ()
    assert find(store, "a") == ended
    assert (ended.decision, ended.result, ended.concluded_us) == ("ship", {"effect": 0.01}, NOW + 5)
    assert not store.verify()


def test_the_plan_is_frozen_by_its_hash() -> None:
    store = MemoryStore()
    created = create(store, None, plan(), now_us=NOW)
    kept = find(store, "a")
    assert kept.sha256 == created.sha256 == kept.plan.sha256
    assert plan(coverage=0.5).sha256 != created.sha256


def test_a_dry_run_leaves_everything_as_it_was() -> None:
    store = MemoryStore()
    create(store, None, plan(), now_us=NOW, dry_run=True)
    assert store.load().experiments == ()
    assert experiments(store) == []


def test_an_id_is_the_seed_of_an_assignment_and_is_used_once() -> None:
    store = MemoryStore()
    create(store, None, plan(), now_us=NOW)
    conclude(store, None, "a", decision="drop", result={}, now_us=NOW)
    with pytest.raises(Refused, match="used before"):
        create(store, None, plan(), now_us=NOW)
    with pytest.raises(Refused, match="concluded already"):
        conclude(store, None, "a", decision="ship", result={}, now_us=NOW)
    assert find(store, "a").decision == "drop"


def test_two_experiments_of_one_layer_share_no_user() -> None:
    store = MemoryStore()
    create(store, None, plan("a", slot=(0.0, 0.5)), now_us=NOW)
    create(store, None, plan("b", slot=(0.5, 1.0)), now_us=NOW)
    with pytest.raises(Refused, match="give a slot beside it"):
        create(store, None, plan("c", slot=(0.4, 0.6)), now_us=NOW)
    with pytest.raises(Refused, match="layer default is by user"):
        create(store, None, plan("d", unit="session"), now_us=NOW)
    create(store, None, plan("e", layer="other"), now_us=NOW)
    assert [e.id for e in experiments(store)] == ["e", "b", "a"]


def test_rules_of_a_treatment_come_with_it() -> None:
    store, rules = MemoryStore(), RulesDocument(version="mild")
    wanted = plan(treatment=Overrides(rules=rules.digest))
    with pytest.raises(Refused, match="no rules document"):
        create(store, None, wanted, now_us=NOW)
    create(store, None, wanted, rules=rules, now_us=NOW)
    assert store.load().rules == {rules.digest: rules}


def test_a_viewer_changes_nothing_and_what_is_refused_is_audited() -> None:
    store, admin = MemoryStore(), Actor("local:me", "admin")
    access.create_token(store, admin, "root", "admin", NOW)
    viewer = access.create_token(store, admin, "eve", "viewer", NOW)
    with pytest.raises(access.Forbidden):
        create(store, viewer, plan(), now_us=NOW)
    assert store.load().experiments == ()
    assert store.history()[-1].action == "refused"


def test_what_was_never_there_is_not_found() -> None:
    with pytest.raises(NotFound, match="no experiment x"):
        conclude(MemoryStore(), None, "x", decision="ship", result={}, now_us=NOW)


GOOD = """
hypothesis = "clicks go up"
[route]
id = "a"
[route.treatment]
sources_off = ["trending"]
[[metrics]]
name = "ctr"
kind = "ctr"
direction = "higher"
role = "primary"
"""


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("colour = 1\n" + GOOD, "colour"),
        (GOOD.replace('role = "primary"', ""), "exactly one metric"),
        (GOOD.replace("clicks go up", ""), "hypothesis"),
        (GOOD.replace('id = "a"', 'id = "../a"'), "id"),
        (GOOD.replace('kind = "ctr"', 'kind = "magic"'), "kind"),
        ("alpha = 0.7\n" + GOOD, "alpha"),
        ("= 1", "experiment file"),
    ],
)
def test_a_file_that_is_off_is_refused_by_its_key(tmp_path: Path, text: str, word: str) -> None:
    file = tmp_path / "a.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=word):
        Plan.read(file)


def test_the_same_file_gives_the_same_plan(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(GOOD)
    assert Plan.read(file) == plan()
    with pytest.raises(NotFound):
        Plan.read(tmp_path / "b.toml")
