"""Bad input is named, with what is weaker for it."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from contracts.dataset import DatasetConfig
from contracts.errors import DataError
from training.data import synth
from training.weaker import what_is_weaker

LATER = 1 << 60


@pytest.fixture
def world(tmp_path: Path) -> Path:
    synth.write(tmp_path / "world", users=60, items=40, days=10, seed=1, events=20_000)
    return tmp_path / "world"


def said(world: Path) -> str:
    return "\n".join(what_is_weaker(world, DatasetConfig.read(world), LATER))


def keep(world: Path, name: str, table: pa.Table) -> None:
    pq.write_table(table, world / f"{name}.parquet")


def rows(world: Path, name: str = "interactions") -> pa.Table:
    return pq.read_table(world / f"{name}.parquet")


def test_a_whole_data_set_has_nothing_to_say(world: Path) -> None:
    assert said(world) == ""


def test_too_few_events(world: Path) -> None:
    keep(world, "interactions", rows(world).slice(0, 200))
    assert "positive events: figures are noisy" in said(world)


def test_one_user(world: Path) -> None:
    table = rows(world)
    keep(world, "interactions", table.filter(pc.equal(table["user_id"], table["user_id"][0])))
    assert "one user: nothing is learned from others" in said(world)


def test_events_on_one_item(world: Path) -> None:
    table = rows(world)
    keep(world, "interactions", table.filter(pc.equal(table["item_id"], table["item_id"][0])))
    assert "events on one item only" in said(world)


def test_a_catalogue_of_one_item_is_refused(world: Path) -> None:
    keep(world, "items", rows(world, "items").slice(0, 1))
    with pytest.raises(DataError, match="nothing to choose from"):
        said(world)


def test_all_positives(world: Path) -> None:
    table = rows(world)
    keep(world, "interactions", table.filter(pc.equal(table["event"], "click")))
    assert "every event is a positive" in said(world)


def test_no_metadata_of_items(world: Path) -> None:
    table = rows(world, "items").select(["item_id", "published_at"])
    keep(world, "items", table.append_column("category", pa.nulls(table.num_rows, pa.string())))
    text = said(world)
    assert "items have no metadata" in text
    assert "`price` of items is not there" in text


def test_a_category_that_the_contract_filled_in_says_nothing(world: Path) -> None:
    table = rows(world, "items")
    unknown = table.set_column(table.column_names.index("category"), "category", pa.array(["unknown"] * table.num_rows))
    keep(world, "items", unknown)
    assert "items have no category: what rests on it says nothing" in said(world)


def test_a_feature_that_is_constant_or_missing_in_half_the_rows(world: Path) -> None:
    table = rows(world, "users")
    n = table.num_rows
    table = table.set_column(1, "country", pa.array(["DE"] * n))
    table = table.set_column(2, "age_band", pa.array([None if at % 2 else "18-24" for at in range(n)], pa.string()))
    keep(world, "users", table)
    text = said(world)
    assert "`country` of users is constant" in text
    assert "`age_band` of users is missing in 50% of the rows" in text


def of_items(world: Path, name: str, values: list[object], *, declared: bool = False) -> str:
    """What is said with this column of items, which dataset.toml does not declare unless `declared`."""
    table = rows(world, "items")
    at = table.column_names.index(name)
    keep(world, "items", table.set_column(at, name, pa.array(values, table.schema.field(at).type)))
    config = DatasetConfig.read(world)
    features = tuple(a for a in config.features if declared or a.table != "items")
    return "\n".join(what_is_weaker(world, config.model_copy(update={"features": features}), LATER))


@pytest.mark.parametrize(
    ("name", "nothing", "something"),
    [
        ("price", None, 2.0),
        ("price", float("nan"), 2.0),
        ("category", "unknown", "c"),
        ("category", "", "c"),
        ("creator_id", None, "x"),
        ("title", "", "a title"),
    ],
)
def test_what_is_known_of_items_is_asked_for_whether_declared_or_not(
    world: Path, name: str, nothing: object, something: object
) -> None:
    text = of_items(world, name, [nothing if at % 5 < 3 else something for at in range(40)])
    assert f"`{name}` of items is missing in 60% of the rows: what rests on it says nothing of those" in text


def test_items_of_which_most_are_known_need_no_warning(world: Path) -> None:
    assert of_items(world, "price", [float("nan") if at % 5 < 2 else 2.0 for at in range(40)]) == ""


def test_prices_that_are_no_numbers_are_no_prices(world: Path) -> None:
    assert "items have no price: what rests on it says nothing" in of_items(world, "price", [float("nan")] * 40)


def test_a_declared_column_of_items_is_told_of_once(world: Path) -> None:
    text = of_items(world, "price", [float("nan") if at % 2 else 2.0 + at for at in range(40)], declared=True)
    assert text == "`price` of items is missing in 50% of the rows: it tells those with it from those without"


def test_one_value_and_nothing_else_is_constant_and_one_value_or_none_is_not(world: Path) -> None:
    table = rows(world, "users")
    n = table.num_rows
    country = ["DE" if at % 3 else None for at in range(n)]
    table = table.set_column(1, "country", pa.array(country, pa.string()))
    table = table.set_column(2, "age_band", pa.array(["18-24"] * n, pa.string()))
    keep(world, "users", table)
    text = said(world)
    assert "`country` of users is missing in 33% of the rows: it tells those with it from those without" in text
    assert "`country` of users is constant" not in text
    assert "`age_band` of users is constant: it is taken out of the models" in text
