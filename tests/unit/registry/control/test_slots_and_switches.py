"""Room in layers, the catalogue of experiments, consumers' keys, flags and holdouts, over the store in memory."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contracts.errors import NotFound, Refused, UsageError
from contracts.routing import ExperimentRoute, Flag, Holdout, Overrides
from registry import consumers
from registry.control.memory import MemoryStore
from registry.control.store import Actor
from registry.experiments import Plan, conclude, create, experiments
from registry.releases.policy import Metric
from registry.slots import allot, free

ME = Actor("token:me", "admin")
OFF = Overrides(sources_off=("trending",))


def route(id_: str, lo: float = 0.0, hi: float = 1.0, layer: str = "default") -> ExperimentRoute:
    return ExperimentRoute(id=id_, treatment=OFF, slot=(lo, hi), layer=layer)


def plan(id_: str, share: float | None = None, sql: str = "select 1", layer: str = "default") -> Plan:
    metric = Metric(name="ctr", kind="sql", direction="higher", role="primary", sql=sql)
    where = ExperimentRoute(id=id_, treatment=OFF, layer=layer)
    return Plan(route=where, hypothesis="better", metrics=(metric,), share=share)


def test_what_is_free_lies_between_the_slots_of_the_layer() -> None:
    routes = [route("b", 0.5, 0.8), route("a", 0.1, 0.3), route("c", 0.0, 1.0, layer="other")]
    assert free(routes, "default") == ((0.0, 0.1), (0.3, 0.5), (0.8, 1.0))
    assert free(routes, "other") == ()
    assert allot(routes, "default", 0.2) == (0.3, 0.5)
    with pytest.raises(Refused, match=r"no 0.25 in one piece: free is 0 to 0.1, 0.3 to 0.5, 0.8 to 1 \(0.5 in all\)"):
        allot(routes, "default", 0.25)


@given(st.lists(st.integers(1, 100), max_size=20))
def test_allotted_slots_never_overlap_and_fill_the_layer(percents: list[int]) -> None:
    routes: list[ExperimentRoute] = []
    for n, percent in enumerate(percents):
        taken = sum(r.slot[1] - r.slot[0] for r in routes)
        try:
            lo, hi = allot(routes, "default", percent / 100)
        except Refused:
            assert taken + percent / 100 > 1 + 1e-7  # none was ever freed: what is left is in one piece
            continue
        assert abs(hi - lo - percent / 100) < 1e-5
        assert all(hi <= r.slot[0] or lo >= r.slot[1] for r in routes)
        routes.append(route(f"e{n}", lo, hi))


def test_experiments_of_one_layer_take_slots_and_give_them_back() -> None:
    store = MemoryStore()
    assert create(store, None, plan("a", 0.6), now_us=1).plan.route.slot == (0.0, 0.6)
    with pytest.raises(Refused, match=r"free is 0.6 to 1 \(0.4 in all\)"):
        create(store, None, plan("b", 0.5), now_us=2)
    with pytest.raises(Refused, match=r"experiment a has 0 to 0.6 of layer default, free is 0.6 to 1"):
        create(store, None, plan("b"), now_us=2)
    assert create(store, None, plan("b", 0.4), now_us=3).plan.route.slot == (0.6, 1.0)
    assert create(store, None, plan("c", 0.5, layer="other"), now_us=4).plan.route.slot == (0.0, 0.5)
    conclude(store, None, "a", decision="no effect", result={}, now_us=5)
    assert create(store, None, plan("d", 0.5), now_us=6).plan.route.slot == (0.0, 0.5)
    with pytest.raises(Refused, match="a was used before"):  # its users were assigned by this id
        create(store, None, plan("a", 0.1), now_us=7)
    assert [e.id for e in experiments(store)] == ["d", "c", "b", "a"]
    assert [r.id for r in store.load().experiments] == ["b", "c", "d"]


def test_a_plan_that_no_entry_could_hold_is_refused_and_a_long_result_is_cut() -> None:
    with pytest.raises(ValidationError, match="over 64000 characters"):
        plan("a", sql="select 1 --" + "x" * 70_000)
    with pytest.raises(ValidationError, match="not both"):
        Plan(route=route("a", 0, 0.5), hypothesis="h", metrics=plan("a").metrics, share=0.5)
    store = MemoryStore()
    create(store, None, plan("a"), now_us=1)
    conclude(store, None, "a", decision="no", result={"rows": "y" * 400_000}, now_us=2)
    (found,) = experiments(store)
    assert (found.decision, found.result["characters"] > 400_000) == ("no", True)


def test_a_consumer_s_key_is_shown_once_and_kept_as_a_digest() -> None:
    store = MemoryStore()
    key = consumers.create(store, ME, "shop", 5.0, 10, 1)
    (held,) = store.load().consumers
    assert (held.key_sha256, held.rate_per_s, held.burst) == (hashlib.sha256(key.encode()).hexdigest(), 5.0, 10)
    assert key not in repr([store.load(), store.history()])
    with pytest.raises(Refused, match="already"):
        consumers.create(store, ME, "shop", None, 10, 2)
    for name, rate, burst in (("odd name!", None, 1), ("x", -1.0, 1), ("x", None, 0)):
        with pytest.raises(UsageError):
            consumers.create(store, ME, name, rate, burst, 2)
    consumers.revoke(store, ME, "shop", 3)
    with pytest.raises(NotFound):
        consumers.revoke(store, ME, "shop", 4)
    assert [e.action for e in store.history()] == ["consumer.create", "consumer.revoke"]


def test_flags_and_holdouts_are_set_cleared_audited_and_bounded() -> None:
    store = MemoryStore()
    consumers.set_flag(store, ME, Flag(id="f", on=OFF), None, 1)
    consumers.set_flag(store, ME, Flag(id="f", on=OFF, coverage=0.5), None, 2)
    assert [f.coverage for f in store.load().flags] == [0.5]
    consumers.clear_flag(store, ME, "f", 3)
    with pytest.raises(NotFound):
        consumers.clear_flag(store, ME, "f", 4)
    for n in range(20):
        consumers.set_holdout(store, ME, Holdout(id=f"h{n}", share=0.01), 5)
    with pytest.raises(Refused, match="at most 20 holdouts"):
        consumers.set_holdout(store, ME, Holdout(id="one-more", share=0.01), 6)
    consumers.set_holdout(store, ME, Holdout(id="h0", share=0), 7)
    assert len(store.load().holdouts) == 19
    create(store, None, plan("taken"), now_us=8)
    with pytest.raises(Refused, match="name of a release or an experiment"):
        consumers.set_flag(store, ME, Flag(id="taken", on=OFF), None, 9)
    assert [e.action for e in store.history()][:3] == ["flag.set", "flag.set", "flag.clear"]
    assert list(store.verify()) == []
