import asyncio
from pathlib import Path

import numpy as np
import pytest

from contracts.errors import DataError, Unreachable
from features.materialize import materialize
from features.offline.items import item_features_as_of
from features.offline.log import open_log
from features.offline.states import user_states_as_of
from features.online.memory import MemoryStore
from features.resolve import resolve

DAY = 86_400_000_000


def test_what_serving_reads_is_what_the_log_says(world: Path) -> None:
    store = MemoryStore()
    embeddings = {"u3": np.full(128, 0.5, np.float32)}
    made = materialize(world, store, 20 * DAY, user_embeddings=embeddings)
    states = user_states_as_of(world, None, 20 * DAY, embeddings=embeddings)
    assert made.users == len(states) == 12
    for user_id, state in states.items():
        read = asyncio.run(store.read_user(user_id))
        assert read.last == state.last
        assert read.watermark_us == 20 * DAY
        assert read.batch.keys() == state.batch.keys()
        for name, stamped in state.batch.items():
            assert read.batch[name].timestamp_us == 20 * DAY
            np.testing.assert_array_equal(read.batch[name].value, stamped.value)
    snapshot = store.read_item_snapshot()
    assert snapshot is not None
    assert snapshot.version == made.item_snapshot
    truth = item_features_as_of(world, 20 * DAY)
    for name, column in snapshot.columns.items():
        np.testing.assert_array_equal(column, truth[name])


def test_the_default_moment_counts_the_last_event_and_is_fresh_at_the_log_s_end(world: Path) -> None:
    store = MemoryStore()
    made = materialize(world, store)
    with open_log(world) as log:
        assert made.as_of_us == log.span_us()[1] + 1
    assert resolve(asyncio.run(store.read_user("u1")), made.as_of_us - 1).stale == ()


def test_an_older_run_after_a_newer_one_changes_no_user(world: Path) -> None:
    store = MemoryStore()
    materialize(world, store, 20 * DAY)
    before = asyncio.run(store.read_user("u1"))
    materialize(world, store, 10 * DAY)
    after = asyncio.run(store.read_user("u1"))
    assert after == before


def test_the_same_log_and_moment_give_the_same_snapshot_and_another_moment_another(world: Path) -> None:
    versions = [materialize(world, MemoryStore(), at * DAY).item_snapshot for at in (20, 20, 19)]
    assert versions[0] == versions[1] != versions[2]


def test_features_that_the_log_cannot_measure_are_not_written(write) -> None:  # type: ignore[no-untyped-def]
    folder = write([("u", "a", DAY, "buy")], config='name = "shop"\n[[positives]]\nevent = "buy"\n')
    store = MemoryStore()
    materialize(folder, store)
    snapshot = store.read_item_snapshot()
    assert snapshot is not None
    assert "item_ctr_7d" not in snapshot.columns
    assert "item_pop_7d" in snapshot.columns


def test_embeddings_of_another_catalogue_are_refused(world: Path) -> None:
    with pytest.raises(DataError, match=r"\(3, 128\).* 9 items"):
        materialize(world, MemoryStore(), item_embeddings=np.zeros((3, 128), np.float32))


def test_item_embeddings_travel_in_the_snapshot(world: Path) -> None:
    store = MemoryStore()
    vectors = np.arange(9 * 128, dtype=np.float32).reshape(9, 128)
    materialize(world, store, item_embeddings=vectors)
    snapshot = store.read_item_snapshot()
    assert snapshot is not None
    np.testing.assert_array_equal(snapshot.columns["item_embedding_128d"], vectors)


def test_a_store_that_is_away_is_an_error_not_a_half_success(world: Path) -> None:
    store = MemoryStore()
    store.away = True
    with pytest.raises(Unreachable):
        materialize(world, store)


def test_any_number_of_users_goes_through_in_parts(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("features.materialize._AT_ONCE", 5)
    monkeypatch.setattr("features.materialize._BATCH", 2)
    steps: list[tuple[int, int]] = []
    store, whole = MemoryStore(), MemoryStore()
    made = materialize(world, store, 20 * DAY, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(5, 12), (10, 12), (12, 12)]
    monkeypatch.undo()
    assert materialize(world, whole, 20 * DAY) == made
    for user in ("u0", "u5", "u11"):
        assert asyncio.run(store.read_user(user)) == asyncio.run(whole.read_user(user))
