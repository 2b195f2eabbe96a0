"""From the store's state to a user."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reference_world import DAY_US, NOW_US, write_world
from bentos.recommender.assemble import load_models
from bentos.recommender.hydrate import Hydrate
from bentos.recommender.models import Models
from bentos.recommender.types import User
from features.online.base import Interaction, UserState

HOUR_US = 3_600_000_000


def resolved(models: Models, query: Any, *last: Interaction, watermark_us: int | None = NOW_US) -> User:
    hydrate = Hydrate(models)
    return hydrate.resolve(query, hydrate.known(query), UserState(query.user_id, {}, last, watermark_us=watermark_us))


def test_history_is_rows_newest_first_with_ages_and_without_unknown_items(models: Models, ask: Any) -> None:
    user = resolved(
        models,
        ask(),
        Interaction("i7", "click", NOW_US - HOUR_US),
        Interaction("gone", "click", NOW_US - 2 * HOUR_US),
        Interaction("i3", "view", NOW_US - 5 * HOUR_US),
    )
    assert user.history.tolist() == [7, 3]
    assert user.history_age_h.tolist() == [1.0, 5.0]
    assert user.history.dtype == np.int32
    assert user.history_age_h.dtype == np.float32


def test_seen_is_the_list_of_the_bundle_and_the_positives_of_the_session(models: Models, ask: Any) -> None:
    loaded = models.retrieval
    assert loaded is not None
    row = loaded.users.lookup("u2")
    trained = set(loaded.seen_items[loaded.seen_indptr[row] : loaded.seen_indptr[row + 1]].tolist())
    click, view = Interaction("i9", "click", NOW_US), Interaction("i10", "view", NOW_US)
    assert set(resolved(models, ask("u2"), click, view).seen.tolist()) == trained | {9}
    assert resolved(models, ask("nobody"), click, view).seen.tolist() == [9]


def test_without_named_positives_every_event_but_an_impression_counts(models: Models, ask: Any) -> None:
    assert models.retrieval is not None
    unnamed = replace(models, retrieval=replace(models.retrieval, positive_events=None))
    events = [Interaction("i1", "impression", NOW_US), Interaction("i2", "rating", NOW_US)]
    assert resolved(unnamed, ask("nobody"), *events).seen.tolist() == [2]


def test_a_stale_session_is_not_fed_to_models_but_still_suppresses(models: Models, ask: Any) -> None:
    old = Interaction("i9", "click", NOW_US - 3 * DAY_US)
    user = resolved(models, ask("nobody"), old, watermark_us=NOW_US - 3 * DAY_US)
    assert user.history.tolist() == []
    assert user.seen.tolist() == [9]
    assert user.stale == ("user_last_10_interactions",)


def test_what_was_taken_up_has_its_newest_moment(tmp_path: Path, ask: Any) -> None:
    models = load_models(write_world(tmp_path, users=5, items=50, item_item=True))
    loaded = models.retrieval
    assert loaded is not None
    assert loaded.seen_at_us is not None
    row = loaded.users.lookup("u2")
    start, end = loaded.seen_indptr[row : row + 2]
    again = int(loaded.seen_items[start])
    new = next(i for i in range(50) if i not in loaded.seen_items[start:end])
    user = resolved(
        models, ask("u2"), Interaction(f"i{again}", "click", NOW_US - 5), Interaction(f"i{new}", "click", NOW_US - 9)
    )
    at_us = dict(zip(user.met.tolist(), user.met_at_us.tolist(), strict=True))
    earlier = {
        int(item): int(at) for item, at in zip(loaded.seen_items[start:end], loaded.seen_at_us[start:end], strict=True)
    }
    assert at_us == earlier | {again: NOW_US - 5, new: NOW_US - 9}
    assert (np.diff(user.met) > 0).all()
