"""Groups of users and of items from a log that is written by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.dataset import DatasetConfig
from tests.unit.study.shop import CONFIG, DAY_US, write_shop
from training.interactions import Items, Log, read_items, read_log
from training.study.cohorts import (
    creator_groups,
    item_cohorts,
    slice_columns,
    spent,
    user_cohorts,
    without_slices,
)

CUT = 100 * DAY_US
ITEMS = [
    {"item_id": "cheap", "price": 2.0, "creator_id": "big"},
    {"item_id": "dear", "price": 10.0, "creator_id": "big"},
    {"item_id": "unpriced", "price": None, "creator_id": "small"},
    {"item_id": "unsold", "price": 5.0, "creator_id": "new", "published_at": 95 * DAY_US},
    {"item_id": "of nobody", "price": 1.0, "creator_id": None},
]
EVENTS = [
    ("ada", "cheap", 10 * DAY_US),
    ("ada", "cheap", 20 * DAY_US),
    ("ada", "dear", 99 * DAY_US),
    ("bob", "cheap", 95 * DAY_US),
    ("bob", "unpriced", 96 * DAY_US),
    ("bob", "of nobody", 97 * DAY_US),
    ("ada", "dear", CUT),  # from the cut on: the future
]
PEOPLE = [
    {"user_id": "ada", "country": "DE", "locale": "de-DE"},
    {"user_id": "bob", "country": "FR", "locale": None},
]


def known(folder: Path, config: DatasetConfig) -> tuple[Log, Items]:
    items = read_items(folder, CUT)
    return read_log(folder, config, items, CUT), items


def of(folder: Path, people: Any = PEOPLE, config: str = CONFIG, **columns: Any) -> dict[str, Any]:
    read = write_shop(folder, EVENTS, ITEMS, people, config, **columns)
    log, items = known(folder, read)
    return {"folder": folder, "config": read, "log": log, "catalogue": items.catalogue}


def test_spend_is_price_times_pieces_of_what_was_bought_before_the_cut(tmp_path: Path) -> None:
    shop = of(tmp_path / "shop", value=[3.0, None, 2.0, 0.0, 4.0, 5.0, 100.0])
    assert shop["log"].user_ids == ["ada", "bob"]
    # ada: 3 × 2 + 1 × 2 (no number of pieces) + 2 × 10; bob: 1 × 2 (less than one piece), no price, 5 × 1
    assert spent(**shop).tolist() == [28.0, 7.0]
    assert spent(**of(tmp_path / "pieces unknown")).tolist() == [14.0, 3.0]


def test_spend_is_of_the_strongest_wish_and_not_of_ratings_or_without_prices(tmp_path: Path) -> None:
    looks = CONFIG + '\n[[positives]]\nevent = "view"\nweight = 0.1\n'
    assert spent(**of(tmp_path / "views", config=looks)).tolist() == [14.0, 3.0]
    stars = CONFIG.replace('event = "purchase"', 'event = "purchase"\nmin_value = 4.0')
    assert spent(**of(tmp_path / "stars", config=stars, value=[5.0] * len(EVENTS))) is None
    folder = tmp_path / "unpriced"
    config = write_shop(folder, EVENTS, [{**item, "price": None} for item in ITEMS])
    log, items = known(folder, config)
    assert spent(folder, config, log, items.catalogue) is None


def test_users_are_grouped_by_what_was_known_of_them_before_the_cut(tmp_path: Path) -> None:
    shop = of(tmp_path / "shop")
    masks = user_cohorts(**shop, users=np.arange(2))
    members = {name: [shop["log"].user_ids[at] for at in np.flatnonzero(mask)] for name, mask in masks.items()}
    assert members["tenure=90+ d"] == ["ada"]  # since day 10
    assert members["tenure=<7 d"] == ["bob"]
    assert members["recency=1–7 d"] == ["ada", "bob"]  # day 99 and day 97: the purchase at the cut is not there yet
    assert members["activity=cold (<5)"] == ["ada", "bob"]
    assert (members["value=low"], members["value=high"]) == (["bob"], ["ada"])
    assert (members["country=DE"], members["country=FR"]) == (["ada"], ["bob"])


def test_who_is_not_in_the_test_leaves_a_group_of_nobody(tmp_path: Path) -> None:
    masks = user_cohorts(**of(tmp_path / "shop"), users=np.array([1]))
    assert masks["country=DE"].tolist() == [False]
    assert masks["country=FR"].tolist() == [True]


@pytest.mark.parametrize("declared", ['slices = ["country"]', "slices = []"])
def test_country_and_locale_are_slices_wherever_users_have_them(tmp_path: Path, declared: str) -> None:
    config = CONFIG.replace('slices = ["country"]', declared)
    shop = of(tmp_path / "shop", config=config)
    masks = user_cohorts(**shop, users=np.arange(2))
    assert {"country=DE", "country=FR", "locale=de-DE", "locale=unknown"} <= set(masks)
    assert slice_columns(shop["config"]) == ("country", "locale")
    bare = of(tmp_path / "bare", people=[{"user_id": "ada", "country": "DE"}], config=config)
    assert not any(name.startswith("locale=") for name in user_cohorts(**bare, users=np.arange(2)))
    lacking = without_slices(shop["config"], shop["catalogue"], user_cohorts(**bare, users=np.arange(2)))
    assert lacking == {"locale": "the users have no such column"}


def test_creators_are_large_small_or_new_by_what_their_items_brought(tmp_path: Path) -> None:
    shop = of(tmp_path / "shop")
    groups = creator_groups(shop["log"], shop["catalogue"])
    ids = list(shop["catalogue"].item_ids)
    assert {name: [ids[at] for at in np.flatnonzero(mask)] for name, mask in groups.items()} == {
        "creators=large": ["cheap", "dear"],  # four of the five events on items that have a creator
        "creators=small": ["unpriced"],
        "creators=new": ["unsold"],
    }


def test_items_without_creators_are_in_no_group(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    config = write_shop(folder, EVENTS, [{"item_id": item["item_id"]} for item in ITEMS])
    log, items = known(folder, config)
    assert creator_groups(log, items.catalogue) == {}


def test_items_are_grouped_by_age_at_the_cut_too(tmp_path: Path) -> None:
    shop = of(tmp_path / "shop")
    masks = item_cohorts(shop["log"], shop["catalogue"])
    ids = list(shop["catalogue"].item_ids)
    assert [ids[at] for at in np.flatnonzero(masks["item_age=<7 d"])] == ["unsold"]
    assert [ids[at] for at in np.flatnonzero(masks["item=cold (no event)"])] == ["unsold"]
