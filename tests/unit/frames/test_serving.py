"""The serving frame is what was logged, item by item; what cannot be read is named."""

import msgspec
import numpy as np
import pyarrow.compute as pc
import pytest

from bentos.telemetry.roll import roll
from contracts.exposures import FeatureUsed
from features.frame import DENSE, FEATURES, default_flag
from features.ranking import row_schema
from monitoring.frames import serving
from monitoring.frames.serving import AGE, Window, problems_of, serving_frame

FROM, TO = None, None
WIDTH = len(row_schema().columns)


def test_a_row_for_each_item_of_each_answer_with_the_values_that_were_logged(answer, write):
    answers = [answer(n) for n in range(7)]
    frame = serving_frame(write(answers), FROM, TO)
    assert frame.num_rows == 7 * 20
    assert frame["logged"].to_pylist() == [True] * 140
    assert problems_of(frame) == []
    for at, (query, slate, shown, record) in enumerate(answers):
        rows = frame.slice(20 * at, 20)
        assert rows["item_id"].to_pylist() == list(slate.item_ids)
        assert rows["position"].to_pylist() == list(range(1, 21))
        assert set(rows["request_id"].to_pylist()) == {query.request_id}
        assert rows["score"].to_pylist() == pytest.approx(slate.scores)
        assert [tuple(s) for s in rows["sources"].to_pylist()] == list(slate.sources)
        assert set(rows["country"].to_pylist()) == {"DE"}
        assert rows["category"].to_pylist() == record.shown.categories
        assert set(rows["feature_hash"].to_pylist()) == {"hash"}
        assert set(rows["ranking"].to_pylist()) == {shown.versions.ranking}
        logged = np.frombuffer(record.shown.rows, np.float32).reshape(20, WIDTH)
        for place, name in enumerate(DENSE):
            values = rows[name].to_numpy()
            known = ~np.isnan(values)
            assert np.array_equal(values[known], logged[known, place]), name
    assert set(FEATURES) <= set(frame.column_names)


def test_ages_and_defaults_are_those_of_the_context(answer, write):
    query, slate, shown, record = answer(0)
    used = [FeatureUsed("user_positives_30d", 3.0, 120.0, "store"), FeatureUsed("item_ctr_7d", None, None, "default")]
    frame = serving_frame(write([(query, slate, shown, msgspec.structs.replace(record, features=used))]), FROM, TO)
    assert set(frame[AGE + "user_positives_30d"].to_pylist()) == {120.0}
    assert set(frame[default_flag("user_positives_30d")].to_pylist()) == {False}
    assert set(frame[default_flag("item_ctr_7d")].to_pylist()) == {True}
    assert set(frame[AGE + "item_ctr_7d"].to_pylist()) == {None}
    assert set(frame[default_flag("item_pop_1d")].to_pylist()) == {None}  # nothing was said of it


def test_a_feature_that_is_logged_and_not_known_here_is_named(answer, write):
    query, slate, shown, record = answer(0)
    used = [FeatureUsed("user_positives_30d", 3.0, 120.0, "store"), FeatureUsed("user_mood", 1.0, 0.0, "store")]
    frame = serving_frame(write([(query, slate, shown, msgspec.structs.replace(record, features=used)), answer(1)]))
    assert problems_of(frame) == [
        "a new feature that this version does not know, `user_mood`, was left out (1 answers)"
    ]


def test_an_answer_without_a_context_keeps_its_rows_and_says_that_its_features_are_not_known(answer, write):
    answers = [answer(n) for n in range(3)]
    home = write(answers, contexts=[answers[1][3]])
    window = Window.open(home, FROM, TO)
    frame = next(window.batches())
    assert frame["logged"].to_pylist() == [False] * 20 + [True] * 20 + [False] * 20
    assert frame["log_item_pop_7d"].null_count == 40
    assert frame["score"].null_count == 40
    assert (window.answers, window.with_context, window.with_rows) == (3, 1, 1)
    assert serving_frame(home, FROM, TO, logged_only=True).num_rows == 20


def test_without_the_rankers_rows_the_scores_are_those_of_the_first_fifty(answer, write):
    query, slate, shown, record = answer(0)
    bare = msgspec.structs.replace(record, shown=None)
    frame = serving_frame(write([(query, slate, shown, bare)]), FROM, TO)
    top = dict(zip(record.top_item_ids, record.top_scores, strict=True))
    expected = [top.get(item) for item in slate.item_ids]
    assert [None if e is None else pytest.approx(e) for e in expected] == frame["score"].to_pylist()
    assert frame["country"].to_pylist() == ["DE"] * 20
    assert set(frame["logged"].to_pylist()) == {False}


def test_past_the_first_twenty_items_features_are_not_known(answer, write):
    frame = serving_frame(write([answer(0, k=30)]), FROM, TO)
    assert frame["logged"].to_pylist() == [True] * 20 + [False] * 10


def test_rolled_and_open_segments_give_the_same_table(answer, write):
    home = write([answer(n) for n in range(5)])
    first = serving_frame(home, FROM, TO)  # rolls
    assert list((home / "log" / "exposures").glob("date=*/*.parquet"))
    assert serving_frame(home, FROM, TO).equals(first)


def test_the_window_is_half_open(answer, write):
    home = write([answer(n) for n in range(4)])
    stamps = serving_frame(home, FROM, TO)["timestamp"].cast("int64").unique().to_pylist()
    frame = serving_frame(home, stamps[1], stamps[3])
    assert frame["timestamp"].cast("int64").unique().to_pylist() == stamps[1:3]
    assert frame["logged"].to_pylist() == [True] * 40


def test_a_window_without_answers_is_a_table_without_rows_and_with_all_columns(answer, write):
    home = write([answer(0)])
    nothing = serving_frame(home, 0, 1)
    assert nothing.num_rows == 0
    assert nothing.schema.names == serving_frame(home, FROM, TO).schema.names


def test_a_home_without_logs_is_an_empty_window(tmp_path):
    assert serving_frame(tmp_path, FROM, TO).num_rows == 0


@pytest.mark.parametrize("log", ["exposures", "contexts"])
def test_a_corrupt_partition_is_named_and_the_rest_is_read(answer, write, log):
    home = write([answer(n) for n in range(3)])
    roll(home)
    good = next((home / "log" / log).glob("date=*/*.parquet"))
    torn = good.with_name("torn.parquet")
    torn.write_bytes(good.read_bytes()[:-40])
    frame = serving_frame(home, FROM, TO)
    assert frame.num_rows == 60
    assert frame["logged"].to_pylist() == [True] * 60
    (problem,) = problems_of(frame)
    assert problem.startswith(f"{log}: date=")
    assert "torn.parquet" in problem


def test_pages_that_turn_out_to_be_damaged_are_named_too(answer, write):
    home = write([answer(n) for n in range(3)])
    roll(home)
    good = next((home / "log" / "contexts").glob("date=*/*.parquet"))
    content = bytearray(good.read_bytes())
    content[200:1200] = bytes(1000)  # the footer is whole, pages are not
    good.write_bytes(content)
    frame = serving_frame(home, FROM, TO)
    assert set(frame["logged"].to_pylist()) == {False}
    assert any(good.name in problem for problem in problems_of(frame))


def test_rows_of_another_signature_are_left_out_and_said(answer, write):
    query, slate, shown, record = answer(0)
    other = msgspec.structs.replace(record.shown, signature="0123456789ab")
    frame = serving_frame(
        write([(query, slate, shown, msgspec.structs.replace(record, shown=other)), answer(1)]), FROM, TO
    )
    assert frame["logged"].to_pylist() == [False] * 20 + [True] * 20
    assert problems_of(frame) == ["rows of another row signature were left out (1 answers)"]


def test_rows_of_other_items_than_were_exposed_are_left_out_and_said(answer, write):
    query, slate, shown, record = answer(0)
    swapped = msgspec.structs.replace(shown, item_ids=[shown.item_ids[1], shown.item_ids[0], *shown.item_ids[2:]])
    frame = serving_frame(write([(query, slate, swapped, record)]), FROM, TO)
    assert frame["logged"].to_pylist() == [False] * 2 + [True] * 18
    assert "other items" in problems_of(frame)[0]


def test_a_sample_is_of_whole_rows_in_order_and_repeats_by_its_seed(answer, write):
    home = write([answer(n) for n in range(6)])
    whole = serving_frame(home, FROM, TO)
    one, again = (serving_frame(home, FROM, TO, at_most=50, seed=3) for _ in range(2))
    assert one.num_rows == 50
    assert one.equals(again)
    assert not one.equals(serving_frame(home, FROM, TO, at_most=50, seed=4))
    keys = [f"{r} {p}" for r, p in zip(whole["request_id"].to_pylist(), whole["position"].to_pylist(), strict=True)]
    taken = [f"{r} {p}" for r, p in zip(one["request_id"].to_pylist(), one["position"].to_pylist(), strict=True)]
    assert taken == [key for key in keys if key in set(taken)]


def test_batches_are_of_bounded_size(answer, write, monkeypatch):
    monkeypatch.setattr(serving, "REQUESTS_AT_ONCE", 2)
    sizes = [batch.num_rows for batch in Window.open(write([answer(n) for n in range(5)]), FROM, TO).batches()]
    assert sizes == [40, 40, 20]


def test_only_chosen_columns_are_kept(answer, write):
    frame = serving_frame(write([answer(0)]), FROM, TO, columns=["item_id", "log_price"])
    assert frame.column_names == ["item_id", "log_price"]
    assert pc.sum(pc.is_valid(frame["log_price"])).as_py() > 0
