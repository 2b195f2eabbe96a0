import json

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from contracts.errors import DataError, UsageError
from training.data import read, synth
from training.data.contract import validate_folder
from training.data.snapshot import take
from training.data.world import World


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("synth") / "world"
    synth.write(out, users=400, items=300, days=10, seed=3, events=60_000)
    return out


@pytest.fixture(scope="module")
def log(folder):
    """Columns of the log, with user and item as rows of the world."""
    table = read.interactions(folder)
    return {
        "user": np.array([int(u[1:]) for u in table["user_id"].to_pylist()]),
        "item": np.array([int(i[1:]) for i in table["item_id"].to_pylist()]),
        "at_us": table["timestamp"].cast("int64").to_numpy(),
        "event": np.array(table["event"].to_pylist()),
        "position": table["position"].fill_null(0).to_numpy(),
        "value": table["value"].to_numpy(),
    }


def test_the_data_set_keeps_its_own_contract(folder):
    report = validate_folder(folder)
    assert report.rejected == ()
    assert abs(report.rows["interactions"] / 60_000 - 1) < 0.05


def test_the_same_seed_gives_the_same_content_and_another_seed_another(tmp_path):
    digests = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        synth.write(tmp_path / name, users=50, items=40, days=3, seed=seed)
        digests.append(take(tmp_path / name, tmp_path / "home").files)
    assert digests[0] == digests[1]
    assert digests[0]["interactions.parquet/2024-12.parquet"] != digests[2]["interactions.parquet/2024-12.parquet"]


def test_the_truth_beside_the_log_is_the_world_of_the_seed(folder):
    world, loaded = World.from_seed(3, users=400, items=300, days=10), World.load(folder / "truth")
    for name in ("user_category", "item_latent", "launch_us", "activity"):
        np.testing.assert_array_equal(getattr(world, name), getattr(loaded, name))
    with np.load(folder / "truth" / "world.npz") as arrays:
        np.testing.assert_allclose(arrays["examination"][:2], [1.0, 2**-0.7], rtol=1e-6)
    with pytest.raises(DataError, match="no synthetic world"):
        World.load(folder)


def test_nothing_is_shown_before_its_launch_or_after_the_end(folder, log):
    world = World.load(folder / "truth")
    assert (log["at_us"] >= world.launch_us[log["item"]]).all()
    assert log["at_us"].max() < world.start_us + world.days * 86_400_000_000
    items = read.items(folder)
    np.testing.assert_array_equal(items["published_at"].cast("int64").to_numpy(), world.launch_us)


def test_every_click_follows_an_impression_of_the_same_user_and_item(log):
    shown = set(zip(*(log[n][log["event"] == "impression"].tolist() for n in ("user", "item")), strict=True))
    clicked = set(zip(*(log[n][log["event"] == "click"].tolist() for n in ("user", "item")), strict=True))
    bought = set(zip(*(log[n][log["event"] == "purchase"].tolist() for n in ("user", "item")), strict=True))
    assert bought <= clicked <= shown
    completion = log["value"][log["event"] == "completion"]
    assert ((completion >= 0) & (completion <= 1)).all()
    assert np.isnan(log["value"][log["event"] == "click"]).all()


def test_clicks_happen_as_often_as_affinity_times_examination_says(folder, log):
    """Outside a session's focus the rate is the world's own; the focus adds at most its boost."""
    world = World.load(folder / "truth")
    shown = log["event"] == "impression"
    user, item, position = log["user"][shown], log["item"][shown], log["position"][shown]
    look = world.examination(position)
    low = (world.affinity(user, item) * look).sum()
    high = (world.affinity(user, item, boost=synth.FOCUS_BOOST) * look).sum()
    clicks = (log["event"] == "click").sum()
    noise = 4 * np.sqrt(high)
    assert low - noise < clicks < high + noise


def test_places_further_down_get_fewer_clicks_by_the_known_bias(log):
    shown = np.bincount(log["position"][log["event"] == "impression"], minlength=11)[1:]
    clicked = np.bincount(log["position"][log["event"] == "click"], minlength=11)[1:]
    rate = clicked / shown
    # Which item stands where is random, so relative rates are the bias itself: (1/p)^0.7.
    np.testing.assert_allclose(rate[[1, 4, 9]] / rate[0], np.array([2, 5, 10.0]) ** -0.7, rtol=0.2)


def test_tastes_differ_more_between_people_than_one_popularity_can_tell():
    """The best 10 items of each user are liked twice as much as the 10 items that are best for all."""
    world = World.from_seed(0, users=300, items=600)
    likes = world.affinity(np.arange(300)[:, None], np.arange(600)[None, :])
    best_for_all = np.argsort(-likes.mean(axis=0))[:10]
    assert np.sort(likes, axis=1)[:, -10:].mean() > 2 * likes[:, best_for_all].mean()


def test_sessions_have_a_focus(folder, log):
    """Two impressions of one slate share a category more often than two of different slates."""
    world = World.load(folder / "truth")
    shown = log["event"] == "impression"
    category, user, at_us = (world.item_category[log["item"]][shown], log["user"][shown], log["at_us"][shown])
    order = np.lexsort((at_us, user))
    category, user, at_us = category[order], user[order], at_us[order]
    same_slate = (user[1:] == user[:-1]) & (at_us[1:] == at_us[:-1])
    new_slate = (user[1:] == user[:-1]) & (at_us[1:] - at_us[:-1] > 3_600_000_000)
    together = category[1:] == category[:-1]
    assert together[same_slate].mean() > together[new_slate].mean() + 0.05


def test_memory_is_bounded_by_a_block_of_sessions(tmp_path, monkeypatch):
    monkeypatch.setattr(synth, "BLOCK_SESSIONS", 100)
    synth.write(tmp_path / "w", users=50, items=40, days=3, events=30_000)
    groups = pq.ParquetFile(tmp_path / "w" / "interactions.parquet").metadata
    largest = max(groups.row_group(i).num_rows for i in range(groups.num_row_groups))
    most_of_a_session = synth.MAX_PAGES * synth.SLATE * len(synth.EVENTS)
    assert groups.num_row_groups > 10
    assert largest <= 100 * most_of_a_session


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ({"users": 0}, "--users is 0"),
        ({"items": 5}, "--items is 5"),
        ({"days": -1}, "--days is -1"),
        ({"days": 100_000_000}, "at most"),
        ({"events": 0}, "--events is 0"),
        ({"seed": -1}, "--seed is -1"),
    ],
)
def test_a_size_that_makes_no_world_is_a_usage_error(tmp_path, size, said):
    with pytest.raises(UsageError, match=said):
        synth.write(tmp_path / "w", **size)
    assert not list(tmp_path.iterdir())


def test_the_smallest_world_works(tmp_path):
    assert synth.write(tmp_path / "w", users=1, items=20, days=1, events=1) >= 1
    assert validate_folder(tmp_path / "w").ok
    assert json.loads((tmp_path / "w" / "origin.json").read_text())["users"] == 1


def test_new_items_are_launched_during_the_log(folder):
    items, log = read.items(folder), read.interactions(folder)
    begin = pc.min(log["timestamp"])
    launched = pc.mean(pc.greater(items["published_at"], begin).cast("float64")).as_py()
    assert 0.25 < launched < 0.55
