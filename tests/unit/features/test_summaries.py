"""What a column looks like does not depend on how it came; expected numbers are NumPy's over the whole."""

import numpy as np
import pyarrow as pa
import pytest

from contracts.errors import DataError
from features import summaries
from features.summaries import Tally


def tally(kind="number"):
    return Tally(kind, np.random.default_rng(0))


def test_batches_give_what_the_whole_column_gives():
    values = np.random.default_rng(1).normal(1e6, 3.0, 10_001)
    one, many = tally(), tally()
    one.add(pa.array(values))
    for part in np.array_split(values, 17):
        many.add(pa.array(part))
    for summary in (one.summary(), many.summary()):
        assert summary.mean == pytest.approx(values.mean(), rel=1e-12)
        assert summary.sd == pytest.approx(values.std(ddof=1), rel=1e-9)
        assert (summary.min, summary.max, summary.n) == (values.min(), values.max(), 10_001)
        assert summary.quantiles["0.5"] == pytest.approx(np.quantile(values, 0.5))


def test_null_and_not_a_number_are_not_there_and_defaults_are_of_what_is_known():
    column = tally()
    column.add(pa.array([1.0, None, float("nan"), float("inf"), 3.0]), pa.array([True, None, None, False, False]))
    summary = column.summary()
    assert (summary.n, summary.null_rate, summary.mean) == (5, 0.6, 2.0)
    assert summary.default_rate == pytest.approx(1 / 3)
    assert summary.missing_rate == pytest.approx(0.6 + 1 / 3)


def test_nothing_at_all_has_no_numbers():
    assert tally().summary().null_rate is None
    empty = tally()
    empty.add(pa.nulls(4))
    assert (empty.summary().null_rate, empty.summary().mean, empty.summary().sd) == (1.0, None, None)
    single = tally()
    single.add(pa.array([2.0]))
    assert (single.summary().mean, single.summary().sd) == (2.0, None)


def test_quantiles_of_more_than_is_kept_are_near():
    column = tally()
    for _ in range(10):
        column.add(pa.array(np.random.default_rng(_).random(10_000)))
    assert column.summary().quantiles["0.9"] == pytest.approx(0.9, abs=0.01)


def test_words_are_counted_and_past_the_limit_together(monkeypatch):
    monkeypatch.setattr(summaries, "MOST_WORDS", 2)
    column = tally("word")
    column.add(pa.array(["a", "b", None, "a"]))
    column.add(pa.array(["c", "a"]).dictionary_encode())
    summary = column.summary()
    assert (summary.categories, summary.other, summary.null_rate) == ({"a": 3, "b": 1}, 1, pytest.approx(1 / 6))


@pytest.mark.parametrize(("kind", "values"), [("number", ["1", "x"]), ("word", [1.0, 2.0])])
def test_values_of_another_type_are_refused(kind, values):
    with pytest.raises(DataError, match="where"):
        tally(kind).add(pa.array(values))
