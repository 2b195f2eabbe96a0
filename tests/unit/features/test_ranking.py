"""Rows for rankers: by hand on a catalogue of four items."""

import numpy as np
import pytest

from contracts.catalogue import Catalogue, Flags
from contracts.ids import IdIndex
from contracts.serving import SOURCES
from features import ranking
from features.item_item import ItemItem
from features.ranking import item_block, row_schema, rows

NOW_US = 1_700_000_000_000_000  # a Tuesday, 22:13:20 UTC
DAY_US = ranking.DAY_US
SCHEMA = row_schema()


@pytest.fixture
def catalogue() -> Catalogue:
    ids = ["a", "b", "c", "d"]
    return Catalogue(
        item_ids=ids,
        index=IdIndex.build(ids),
        category=np.array([0, 0, 1, 1], np.int32),
        categories=["books", "games"],
        creator=np.array([0, 1, -1, 1], np.int32),
        creators=["x", "y"],
        price=np.array([1.0, 3.0, np.nan, 7.0], np.float32),
        published_us=np.full(4, NOW_US - 3 * DAY_US),
        is_promoted=np.array([False, True, False, False]),
        flags=Flags(np.zeros(4, bool)),
    )


def made(catalogue: Catalogue, /, **changes: object) -> np.ndarray:
    given = {
        "items": np.array([1, 2], np.int32),
        "retrieval": np.array([0.4, 0.9], np.float32),
        "by_source": np.array([[0, 0.4, 0, 0, 0], [0.5, 0.4, 0, 0, 0]], np.float32),
        "history": np.array([0, 3], np.int32),
        "history_age_h": np.array([2.0, 50.0], np.float32),
        "features": {"user_category_preferences": {"books": 0.75, "gone": 0.25}, "user_tenure_days": 9.0},
        "context": {"country": "DE", "device": "iOS"},
        "now_us": NOW_US,
        "catalogue": catalogue,
        "block": item_block(catalogue, {"item_pop_7d": np.array([0, 4, np.nan, 1], np.float32)}, NOW_US),
        "item_embeddings": np.eye(4, 8, dtype=np.float32),
    }
    return rows(**(given | changes))  # type: ignore[arg-type]


def column(table: np.ndarray, name: str) -> list[float]:
    return [round(float(value), 5) for value in table[:, SCHEMA.at(name)]]


def test_a_row_has_the_columns_of_the_schema(catalogue: Catalogue) -> None:
    table = made(catalogue)
    assert table.shape == (2, len(SCHEMA.columns))
    assert table.dtype == np.float32
    assert len(set(SCHEMA.names)) == len(SCHEMA.names)


def test_item_columns_are_gathered_and_unknowns_are_defaults(catalogue: Catalogue) -> None:
    table = made(catalogue)
    assert column(table, "log_item_pop_7d") == pytest.approx([np.log1p(4), 0.0], abs=1e-5)
    assert column(table, "item_ctr_7d") == pytest.approx([0.02, 0.02])
    assert column(table, "log_age_d") == pytest.approx([np.log1p(3)] * 2, abs=1e-5)
    assert column(table, "price_known") == [1, 0]
    assert column(table, "promoted") == [1, 0]


def test_pair_columns_say_how_user_and_item_meet(catalogue: Catalogue) -> None:
    table = made(catalogue)
    assert column(table, "agreeing") == [1, 2]
    assert column(table, "log_retrieval_rank") == pytest.approx([np.log1p(1), 0], abs=1e-5)
    assert column(table, "category_share") == [0.75, 0]
    assert column(table, "category_in_history") == [1, 1]
    assert column(table, "creator_in_history") == [1, 0]  # item b and history item d are by y; item c by nobody
    paid = (np.log1p(1.0) + np.log1p(7.0)) / 2
    assert column(table, "price_gap") == pytest.approx([np.log1p(3.0) - paid, 0], abs=1e-4)


def test_user_columns_are_the_same_for_all_candidates(catalogue: Catalogue) -> None:
    table = made(catalogue)
    assert column(table, "log_hours_since_last") == pytest.approx([np.log1p(2)] * 2, abs=1e-5)
    assert column(table, "log_user_tenure_days") == pytest.approx([np.log(10)] * 2, abs=1e-5)
    assert column(table, "log_user_avg_session_length_min") == pytest.approx([np.log1p(12)] * 2, abs=1e-5)
    assert column(table, "history_length") == [2, 2]
    assert column(table, "device") == [1, 1]


def test_embeddings_give_cosines_with_query_and_history(catalogue: Catalogue) -> None:
    items = np.array([[1, 0], [0, 1], [1, 1], [0, 2]], np.float32)
    table = made(
        catalogue, graph_items=items, graph_user=np.array([0, 3], np.float32), query_embedding=np.eye(1, 8, 1)[0]
    )
    assert column(table, "two_tower_cosine") == [1, 0]
    assert column(table, "graph_cosine") == pytest.approx([1, 2**-0.5], abs=1e-4)
    assert column(table, "graph_history_max") == pytest.approx([1, 2**-0.5], abs=1e-4)
    assert column(table, "two_tower_history_max") == [0, 0]


def test_a_history_speaks_for_candidates_by_what_of_it_is_left(catalogue: Catalogue) -> None:
    # Item a speaks for b, item d for c and half as much for b; d was met two half-lives of 60 days ago.
    weights = ItemItem(np.array([0, 1, 1, 1, 3]), np.array([1, 1, 2], np.int32), np.array([1.0, 0.5, 1.0], np.float32))
    met_at_us = np.array([NOW_US, NOW_US - 120 * DAY_US])
    table = made(catalogue, item_item=weights, met=np.array([0, 3], np.int32), met_at_us=met_at_us)
    assert column(table, "agree_60d") == [1.125, 0.25]
    assert column(table, "agree_120d") == [1.25, 0.5]
    assert column(table, "agree_all") == [1.5, 1.0]
    assert column(table, "agree_share_all") == pytest.approx([1, 2 / 3], abs=1e-4)
    assert column(table, "log_agree_rank_60d") == pytest.approx([0, np.log(2)], abs=1e-4)
    assert column(table, "log_days_met") == pytest.approx([np.log(3)] * 2, abs=1e-4)
    price = (np.log1p(1.0) + 0.25 * np.log1p(7.0)) / 1.25
    assert column(table, "met_price") == pytest.approx([price] * 2, abs=1e-4)
    assert column(table, "age_gap") == pytest.approx([0, 0], abs=1e-5)


@pytest.mark.parametrize("met", [[], [7]])
def test_a_history_that_the_weights_do_not_know_says_nothing(catalogue: Catalogue, met: list[int]) -> None:
    weights = ItemItem(np.zeros(5, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))
    times = np.full(len(met), NOW_US)
    table = made(catalogue, item_item=weights, met=np.array(met, np.int32), met_at_us=times)
    assert table.tobytes() == made(catalogue).tobytes()


def test_lengths_that_were_kept_give_the_same_bits_as_lengths_made_for_the_request(catalogue: Catalogue) -> None:
    rng = np.random.default_rng(1)
    items = rng.standard_normal((4, 24)).astype(np.float32)
    given = {"graph_items": items, "graph_user": rng.standard_normal(24).astype(np.float32)}
    kept = made(catalogue, **given, graph_norms=ranking.norms_of(items))
    assert kept.tobytes() == made(catalogue, **given).tobytes()


def test_a_new_user_without_anything_has_finite_rows(catalogue: Catalogue) -> None:
    table = made(
        catalogue,
        history=np.empty(0, np.int32),
        history_age_h=np.empty(0, np.float32),
        features={},
        context={},
        retrieval=np.array([np.nan, 0.1], np.float32),
        graph_items=np.zeros((4, 2), np.float32),
    )
    assert np.isfinite(table).all()
    assert column(table, "country") == [0, 0]


def test_no_candidates_make_no_rows(catalogue: Catalogue) -> None:
    nothing = np.empty(0, np.float32)
    table = made(
        catalogue, items=np.empty(0, np.int32), retrieval=nothing, by_source=np.empty((0, len(SOURCES)), np.float32)
    )
    assert table.shape == (0, len(SCHEMA.columns))


def test_categorical_indices_are_inside_their_tables(catalogue: Catalogue) -> None:
    table = made(catalogue, context={"country": "\ud800", "device": "fridge"})
    for at, entry in enumerate(SCHEMA.columns):
        if entry.kind == "categorical":
            assert 0 <= table[:, at].min() <= table[:, at].max() < entry.size


def test_a_category_has_the_same_number_in_every_catalogue(catalogue: Catalogue) -> None:
    from dataclasses import replace

    other = replace(catalogue, category=catalogue.category + 1, categories=["animals", "books", "games"])
    assert column(made(catalogue), "category") == column(made(other), "category")


def test_the_signature_changes_with_the_columns() -> None:
    assert ranking.RowSchema(SCHEMA.columns[:-1]).signature != SCHEMA.signature
    assert row_schema().signature == SCHEMA.signature
