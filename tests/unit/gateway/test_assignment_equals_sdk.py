"""The gateway's walk over the rules and the SDK's own evaluation of the same features, on whatever tables there are."""

from typing import Any

from growthbook import GrowthBook
from hypothesis import given, settings
from hypothesis import strategies as st

from bentos.gateway.assignment import Assigner, features_of, shadow_key
from contracts.routing import ExperimentRoute, Flag, Holdout, Overrides, RoutingTable
from tests.unit.gateway.routed import release, table

UNITS = st.sampled_from(("user", "session", "device"))
NAMES = st.sampled_from(("country", "tenure", "app_version", "user_id"))
VALUES = st.sampled_from(("", "DE", "FR", "de", "30", "45.5", "nan", "1.10.0", "1.9", "u1"))
SHARES = st.sampled_from((0.0, 0.1, 0.5, 0.9, 1.0)) | st.floats(0, 1)
TESTS = st.one_of(
    VALUES,
    st.builds(lambda o, v: {o: v}, st.sampled_from(("$eq", "$ne", "$vgt", "$vlte", "$veq", "$vne")), VALUES),
    st.builds(lambda o, v: {o: v}, st.sampled_from(("$gt", "$gte", "$lt", "$lte")), st.integers(0, 60)),
    st.builds(
        lambda o, v: {o: v}, st.sampled_from(("$in", "$nin", "$ini", "$nini")), st.lists(VALUES, min_size=1, max_size=3)
    ),
    st.builds(lambda o, v: {o: v}, st.sampled_from(("$regex", "$regexi")), st.sampled_from(("^D", "[0-9]+"))),
    st.builds(lambda b: {"$exists": b}, st.booleans()),
    st.builds(lambda v: {"$not": {"$eq": v}}, VALUES),
    st.builds(lambda o, v: {"$not": {o: v}}, st.sampled_from(("$gt", "$lte")), st.integers(0, 60)),
)
CONDITIONS = st.recursive(
    st.dictionaries(NAMES, TESTS, min_size=1, max_size=2),
    lambda inner: st.one_of(
        st.builds(
            lambda o, c: {o: c}, st.sampled_from(("$and", "$or", "$nor")), st.lists(inner, min_size=1, max_size=2)
        ),
        st.builds(lambda c: {"$not": c}, inner),
    ),
    max_leaves=4,
)
MAYBE: st.SearchStrategy[Any] = st.just({}) | CONDITIONS


@st.composite
def tables(draw: st.DrawFn) -> RoutingTable:
    split = draw(st.sampled_from((0.5, 0.2, 0.7)))
    weight = draw(st.sampled_from((0.0, 100 * split, 100.0)) | st.floats(0, 100 * split))
    slots = draw(st.lists(SHARES, min_size=2, max_size=2, unique=True).map(sorted))
    return table(
        release=release(weight=weight, split=split, shadow=draw(SHARES) * 100, unit=draw(UNITS), condition=draw(MAYBE)),
        experiments=tuple(
            ExperimentRoute(
                id=f"e{i}",
                unit=draw(UNITS),
                treatment=Overrides(sources_off=("graph",)),
                coverage=draw(SHARES),
                split=draw(st.floats(0.05, 0.95)),
                condition=draw(MAYBE),
                slot=(slots[0], slots[1]) if draw(st.booleans()) else (0, 1),
            )
            for i in range(draw(st.integers(0, 2)))
        ),
        holdouts=tuple(
            Holdout(id=f"h{i}", unit=draw(UNITS), share=draw(SHARES)) for i in range(draw(st.integers(0, 2)))
        ),
        flags=tuple(
            Flag(id=f"f{i}", on=Overrides(sources_off=("content",)), unit=draw(UNITS), coverage=draw(SHARES))
            for i in range(draw(st.integers(0, 1)))
        ),
    )


@settings(max_examples=400, deadline=None)
@given(
    of=tables(),
    users=st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=6),
    context=st.dictionaries(st.sampled_from(("country", "tenure", "app_version", "session", "device_id")), VALUES),
)
def test_the_gateway_and_the_sdk_agree(of: RoutingTable, users: list[str], context: dict[str, str]) -> None:
    assigner, route = Assigner(of), of.release
    assert route is not None
    engine = GrowthBook(features=features_of(of))
    for user in users:
        engine.set_attributes({**context, "user_id": user})

        def value(key: str) -> Any:
            return engine.eval_feature(key).value

        assigned = assigner.assign(user, context)
        assert assigned.variant == value(route.id)
        assert assigned.shadow_eligible is value(shadow_key(route))
        for e in of.experiments:
            assert assigned.experiments.get(e.id) == value(e.id)
        for f in of.flags:
            assert ("content" in assigned.sources_off) is value(f.id)
    engine.destroy()
