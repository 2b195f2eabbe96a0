"""A context record keeps what the ranker read of the items that were shown, value by value."""

from typing import Any

import msgspec
import numpy as np
import pytest

from bentos.recommender.funnel import Funnel
from bentos.recommender.models import Models
from bentos.recommender.rules import default_rules
from bentos.recommender.side_effects import context_record
from bentos.recommender.slates import ROW_SIGNATURE, SHOWN_ROWS
from bentos.telemetry.kinds import CONTEXTS, context_of_row
from features.online.base import UserState
from features.ranking import row_schema


@pytest.mark.parametrize("k", [3, 20, 50])
def test_the_rows_of_the_first_items_are_those_that_their_scores_come_from(models: Models, ask: Any, k: int) -> None:
    query = ask(k=k)
    slate = Funnel(models, None).run(query, UserState("u1"))  # a promoted item's score is raised by the rules
    record = context_record(query, slate, [], with_rows=True)
    shown = record.shown
    assert shown is not None
    n = min(k, SHOWN_ROWS)
    assert shown.item_ids == list(slate.item_ids[:n])
    assert shown.scores == list(slate.scores[:n])
    assert shown.signature == ROW_SIGNATURE
    rows = np.frombuffer(shown.rows, np.float32).reshape(n, len(row_schema().columns))
    assert models.ranker is not None
    assert models.ranker.score(rows) == pytest.approx(np.array(shown.scores), abs=1e-5)
    catalogue = models.catalogue
    at = catalogue.index.lookup_many(shown.item_ids)
    assert shown.categories == [catalogue.categories[c] for c in catalogue.category[at]]


def test_the_rows_come_back_from_the_log_bit_by_bit(models: Models, ask: Any) -> None:
    query = ask()
    record = context_record(query, Funnel(models, default_rules()).run(query, UserState("u1")), [], with_rows=True)
    assert CONTEXTS.decode(msgspec.msgpack.encode(record)) == record
    assert context_of_row(CONTEXTS.table([record]).to_pylist()[0]) == record


def test_a_record_that_is_not_sampled_for_rows_has_none(models: Models, ask: Any) -> None:
    query = ask()
    slate = Funnel(models, default_rules()).run(query, UserState("u1"))
    assert context_record(query, slate, []).shown is None


def test_a_popularity_list_has_no_rows(models: Models, ask: Any) -> None:
    query = ask()
    slate = Funnel(models, default_rules()).popularity(query)
    assert context_record(query, slate, [], with_rows=True).shown is None
