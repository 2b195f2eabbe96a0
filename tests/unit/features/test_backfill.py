from pathlib import Path

import pyarrow.parquet as pq
import pytest

from contracts.errors import NotFound, UsageError
from features.backfill import backfill
from features.offline.items import item_features_as_of
from features.offline.states import user_states_as_of
from features.online.base import Interaction
from features.registry import REGISTRY

DAY = 86_400_000_000


def history(path: Path) -> dict[tuple[str, int], object]:
    table = pq.read_table(path)
    assert table.column_names == ["entity", "timestamp_us", "value"]
    assert table.schema.metadata[b"feature_hash"].decode() == REGISTRY.hash
    columns = (table[name].to_pylist() for name in table.column_names)
    return {(entity, at): value for entity, at, value in zip(*columns, strict=True)}


def test_a_user_feature_s_history_is_what_each_moment_would_have_said(world: Path, tmp_path: Path) -> None:
    made = backfill("user_positives_30d", world, tmp_path / "h.parquet", since_us=8 * DAY, until_us=11 * DAY)
    found = history(made.out)
    assert made.moments == 3
    assert {at for _, at in found} == {8 * DAY, 9 * DAY, 10 * DAY}
    for moment in (8, 9, 10):
        states = user_states_as_of(world, None, moment * DAY)
        assert {e for e, at in found if at == moment * DAY} == set(states)
        for user_id, state in states.items():
            assert found[user_id, moment * DAY] == state.batch["user_positives_30d"].value


def test_preferences_are_a_map(world: Path, tmp_path: Path) -> None:
    made = backfill("user_category_preferences", world, tmp_path / "h.parquet", since_us=20 * DAY, until_us=21 * DAY)
    state = user_states_as_of(world, ["u1"], 20 * DAY)["u1"]
    assert dict(history(made.out)["u1", 20 * DAY]) == pytest.approx(state.batch["user_category_preferences"].value)  # type: ignore[call-overload]


@pytest.mark.parametrize("name", ["item_ctr_7d", "item_trending_score", "item_pop_14d"])
def test_an_item_feature_s_history_is_what_each_moment_would_have_said(world: Path, tmp_path: Path, name: str) -> None:
    made = backfill(name, world, tmp_path / "h.parquet", since_us=10 * DAY, until_us=12 * DAY, every_us=DAY // 2)
    found = history(made.out)
    assert len({at for _, at in found}) == 4
    for at in (10 * DAY, 11 * DAY + DAY // 2):
        truth = item_features_as_of(world, at)[name]
        assert [found[f"i{n}", at] for n in range(9)] == pytest.approx(truth.tolist(), rel=1e-5)


def test_the_last_interactions_have_a_value_after_each_event(world: Path, tmp_path: Path) -> None:
    made = backfill("user_last_10_interactions", world, tmp_path / "h.parquet", since_us=15 * DAY)
    found = history(made.out)
    moments = sorted(at for entity, at in found if entity == "u2")
    assert moments[0] >= 15 * DAY
    for at in (moments[0], moments[-1]):
        state = user_states_as_of(world, ["u2"], at + 1)["u2"]
        value = found["u2", at]
        assert isinstance(value, list)
        assert tuple(Interaction(**row) for row in value) == state.last


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("shoe_size", NotFound, "no feature is called shoe_size"),
        ("item_embedding_128d", UsageError, "comes from a model"),
        ("item_age_days", UsageError, "no history"),
    ],
)
def test_what_has_no_history_is_refused(
    world: Path, tmp_path: Path, name: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        backfill(name, world, tmp_path / "h.parquet")
    assert not list(tmp_path.glob("h.*"))


def test_an_empty_range_is_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="empty"):
        backfill("item_ctr_7d", world, tmp_path / "h.parquet", since_us=5 * DAY, until_us=5 * DAY)


def test_a_run_that_fails_midway_leaves_the_old_file_and_no_part(world: Path, tmp_path: Path) -> None:
    target = tmp_path / "h.parquet"
    target.write_text("the file of before")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backfill("item_pop_7d", world, target, progress=stop)
    assert target.read_text() == "the file of before"
    assert list(tmp_path.glob("h.*")) == [target]


def test_a_feature_that_the_log_cannot_measure_is_refused(write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = write([("u", "a", DAY, "buy")], config='name = "shop"\n[[positives]]\nevent = "buy"\n')
    with pytest.raises(UsageError, match="item_ctr_7d"):
        backfill("item_ctr_7d", folder, tmp_path / "h.parquet")
    assert not list(tmp_path.glob("h.*"))
