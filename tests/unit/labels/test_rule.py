"""One label: an event, a SQL expression and a column of events are judged alike, and two rules are told apart."""

import duckdb
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from contracts.dataset import Positive
from features.labels import LabelRule

positives = st.builds(
    Positive,
    event=st.sampled_from(["click", "rating", "it's"]),
    min_value=st.one_of(st.none(), st.sampled_from([1.0, 3.5])),
    weight=st.sampled_from([0.5, 1.0, 3.0]),
)
events = st.lists(
    st.tuples(st.sampled_from(["click", "rating", "it's", "view"]), st.one_of(st.none(), st.floats(0, 5))), max_size=8
)


@given(st.lists(positives, min_size=1, max_size=4), events)
def test_an_event_weighs_the_same_in_python_in_sql_and_in_a_column(rules, happened):
    rule = LabelRule(tuple(rules))
    one_by_one = [rule.weight(event, value) for event, value in happened]
    names = pa.array([event for event, _ in happened], pa.string())
    values = pa.array([value for _, value in happened], pa.float64())
    db = duckdb.connect()
    db.register("happened", pa.table({"event": names, "value": values, "n": range(len(happened))}))
    query = f"SELECT {rule.sql()} FROM happened ORDER BY n"  # noqa: S608 - the expression is what is tested
    assert [weight for (weight,) in db.execute(query).fetchall()] == one_by_one
    mask = rule.mask(pa.chunked_array([names]), pa.chunked_array([values]))
    assert mask.tolist() == [weight > 0 for weight in one_by_one]


def test_without_values_no_rule_that_asks_for_one_fits():
    rule = LabelRule((Positive(event="rating", min_value=4.0), Positive(event="click")))
    names = pa.chunked_array([["rating", "click"]])
    assert rule.mask(names, None).tolist() == [False, True]
    db = duckdb.connect()
    query = f"SELECT {rule.sql('NULL')} FROM (SELECT 'rating' AS event)"  # noqa: S608
    assert db.execute(query).fetchall() == [(0.0,)]


def test_a_planted_difference_is_named():
    trained = LabelRule((Positive(event="click"), Positive(event="rating", min_value=4.0)))
    assert trained.differences(trained) == []
    later = LabelRule((Positive(event="click", attribution_h=1), Positive(event="rating", min_value=4.0)))
    assert trained.differences(later) == ["`click`: attribution_h is 24 h in the first, 1 h in the second"]
    lower = LabelRule((Positive(event="click"), Positive(event="rating", min_value=3.0)))
    assert trained.differences(lower) == [
        "`rating` of at least 3 is a positive in the second only",
        "`rating` of at least 4 is a positive in the first only",
    ]
    turned = LabelRule(trained.positives[::-1])
    assert trained.differences(turned) == ["the rules stand in another order, and the first that fits decides"]
    assert len({rule.digest for rule in (trained, later, lower, turned)}) == 4
