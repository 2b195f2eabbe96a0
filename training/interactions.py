"""A data set as the models read it: the catalogue and the log as aligned columns of row numbers, as of one moment.

Shapes: N items, U users, E events.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from contracts.catalogue import Catalogue, Flags
from contracts.dataset import INTERACTIONS, ITEMS, USERS, DatasetConfig
from contracts.errors import DataError
from contracts.ids import IdIndex
from features.labels import LabelRule
from features.offline.columns import fetch
from training.data.engine import connect

DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Items:
    """The catalogue as of `until_us`. `kept`: bool over the rows of items.parquet, which of them are in it.

    titles: N strings, "" where there is none.
    """

    catalogue: Catalogue
    titles: Sequence[str]
    kept: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Log:
    """Events before `until_us` on catalogue items, sorted by user, then time, then item.

    user, item: int32 [E] rows; timestamp_us: int64 [E]; weight: float32 [E], that of the positive, 0 for an event that
    is none; impression: bool [E]; user_ids: U strings, sorted; attributes: int32 [U, A] into `attribute_values`,
    0 unknown, for each column in `attribute_columns`.
    """

    until_us: int
    user: NDArray[np.int32]
    item: NDArray[np.int32]
    timestamp_us: NDArray[np.int64]
    weight: NDArray[np.float32]
    impression: NDArray[np.bool_]
    user_ids: list[str]
    attribute_columns: tuple[str, ...]
    attribute_values: dict[str, list[str]]
    attributes: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.user)

    @property
    def n_users(self) -> int:
        return len(self.user_ids)

    def positives(self) -> "Positives":
        """The events that count as a wish, and nothing else."""
        keep = self.weight > 0
        return Positives(
            self.until_us, self.n_users, self.user[keep], self.item[keep], self.timestamp_us[keep], self.weight[keep]
        )

    def decay(self, half_life_d: float) -> NDArray[np.float32]:
        """float32 [E]: 1 at `until_us`, a half one half-life before."""
        return decay(self.timestamp_us, self.until_us, half_life_d)


@dataclass(frozen=True, slots=True)
class Positives:
    """Positive events, aligned, in the order of the log."""

    until_us: int
    n_users: int
    user: NDArray[np.int32]
    item: NDArray[np.int32]
    timestamp_us: NDArray[np.int64]
    weight: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.user)

    def decayed_weight(self, half_life_d: float) -> NDArray[np.float32]:
        return self.weight * decay(self.timestamp_us, self.until_us, half_life_d)


def decay(timestamp_us: NDArray[np.int64], until_us: int, half_life_d: float) -> NDArray[np.float32]:
    """Exponential: 1 at `until_us`, a half one half-life (in days) before."""
    age_d = (until_us - timestamp_us) / DAY_US
    out: NDArray[np.float32] = np.exp2(-age_d / half_life_d).astype(np.float32)
    return out


def read_items(folder: Path, until_us: int) -> Items:
    """The items published by `until_us`, met or not, in the order of items.parquet.

    Raises:
        DataError: no items.parquet, or nothing in it was published by then.
    """
    path = folder / ITEMS
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path} cannot be read: {error}", next_command=f"streamrec data validate {folder}") from error
    published = table["published_at"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).fill_null(0).to_numpy()
    kept = published <= until_us
    if not kept.any():
        raise DataError(f"no item of {folder} was published by the training cut: is --until before the data begins?")
    table = table.filter(pa.array(kept))
    n = table.num_rows

    def strings(name: str) -> pa.Array:
        if name not in table.column_names:
            return pa.array([None] * n, pa.string())
        return table[name].cast(pa.string()).combine_chunks()

    def yes(name: str) -> NDArray[np.bool_]:
        if name not in table.column_names:
            return np.zeros(n, dtype=bool)
        return np.asarray(table[name].cast(pa.bool_()).fill_null(False).to_numpy(), dtype=bool)

    item_ids = strings("item_id").to_pylist()
    category, categories = _encode(strings("category").fill_null(""))
    creator, creators = _encode(strings("creator_id"))
    if "price" in table.column_names:
        price = table["price"].cast(pa.float32()).fill_null(float("nan")).to_numpy().astype(np.float32)
    else:
        price = np.full(n, np.nan, dtype=np.float32)
    catalogue = Catalogue(
        item_ids=item_ids,
        index=IdIndex.build(item_ids),
        category=category,
        categories=categories,
        creator=creator,
        creators=creators,
        price=price,
        published_us=published[kept].astype(np.int64),
        is_promoted=yes("is_promoted"),
        flags=Flags(yes("is_flagged")),
    )
    return Items(catalogue, strings("title").fill_null("").to_pylist(), kept)


def read_log(folder: Path, config: DatasetConfig, items: Items, until_us: int) -> Log:
    """Every event before `until_us` on an item of the catalogue.

    Raises:
        DataError: no interactions.parquet, or no positive event before the cut.
    """
    path = folder / INTERACTIONS
    if not path.exists():
        raise DataError(f"{folder} has no {INTERACTIONS}", next_command=f"streamrec data validate {folder}")
    schema = ds.dataset(path).schema  # a file, or a snapshot's folder of monthly files
    item_ids = pa.table(
        {"item_id": items.catalogue.item_ids, "item": pa.array(np.arange(len(items.catalogue), dtype=np.int32))}
    )
    weight = LabelRule.of(config).sql("value" if "value" in schema.names else "NULL")
    impression = f"event = {_quote(config.impression_event)}" if config.impression_event else "false"
    with connect(f"{path} cannot be read") as connection:
        connection.register("item_rows", item_ids)
        connection.execute(
            f"""
            CREATE VIEW log AS
            SELECT user_id, item, epoch_us("timestamp") AS timestamp_us, CAST({weight} AS FLOAT) AS weight,
                   {impression} AS impression
            FROM read_parquet({_quote(str(path))}) JOIN item_rows USING (item_id)
            WHERE epoch_us("timestamp") < {int(until_us)}
            """  # noqa: S608 - every part is quoted or a number
        )
        connection.execute(
            "CREATE TEMP TABLE user_rows AS SELECT user_id, events,"
            " CAST(row_number() OVER (ORDER BY user_id) - 1 AS INTEGER) AS row"
            " FROM (SELECT user_id, count(*) AS events FROM log GROUP BY user_id)"
        )
        found = connection.sql("SELECT user_id, events FROM user_rows ORDER BY row").to_arrow_table()
        user_ids = found["user_id"].to_pylist()
        columns = fetch(
            connection.sql(
                "SELECT u.row AS user, item, timestamp_us, weight, impression FROM log JOIN user_rows u USING (user_id)"
                " ORDER BY u.row, timestamp_us, item, weight, impression"
            ),
            pc.sum(found["events"]).as_py() or 0,
            {"user": np.int32, "item": np.int32, "timestamp_us": np.int64, "weight": np.float32, "impression": bool},
        )
        names, values, attributes = _attributes(connection, folder, path, config, schema, len(user_ids), until_us)
    if not (columns["weight"] > 0).any():
        raise DataError(
            f"{folder} has no positive event before the training cut",
            next_command=f"streamrec data describe {folder}",
        )
    return Log(
        until_us=until_us,
        **columns,
        user_ids=user_ids,
        attribute_columns=names,
        attribute_values=values,
        attributes=attributes,
    )


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _encode(column: pa.Array) -> tuple[NDArray[np.int32], list[str]]:
    """Codes into the sorted distinct values; -1 where null."""
    values = sorted(v for v in pc.unique(column).to_pylist() if v is not None)
    codes = pc.index_in(column, value_set=pa.array(values, pa.string()))
    return codes.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32), values


def _attributes(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    interactions: Path,
    config: DatasetConfig,
    schema: pa.Schema,
    n_users: int,
    until_us: int,
) -> tuple[tuple[str, ...], dict[str, list[str]], NDArray[np.int32]]:
    """Categorical attributes of users: columns of users.parquet, and context columns at their last known value."""
    users = folder / USERS
    user_columns = set(pq.read_schema(users).names) if users.exists() else set()
    sources: dict[str, str] = {}
    for attribute in config.features:
        if attribute.kind != "categorical" or attribute.column in sources:
            continue
        name = _name(attribute.column)
        if attribute.table == "users" and attribute.column in user_columns:
            table = f"read_parquet({_quote(str(users))})"
            sources[attribute.column] = (
                f"SELECT user_id, any_value(CAST({name} AS VARCHAR)) AS value FROM {table} GROUP BY user_id"  # noqa: S608
            )
        elif attribute.table == "interactions" and attribute.column in schema.names:
            table = f"read_parquet({_quote(str(interactions))})"
            sources[attribute.column] = (
                f'SELECT user_id, arg_max(CAST({name} AS VARCHAR), "timestamp") AS value FROM {table}'  # noqa: S608
                f' WHERE epoch_us("timestamp") < {int(until_us)} AND {name} IS NOT NULL GROUP BY user_id'
            )
    values: dict[str, list[str]] = {}
    attributes = np.zeros((n_users, len(sources)), dtype=np.int32)
    for position, (column, query) in enumerate(sources.items()):
        found = connection.sql(
            f"SELECT a.value FROM user_rows u LEFT JOIN ({query}) a USING (user_id) ORDER BY u.row"  # noqa: S608
        ).to_arrow_table()["value"]
        codes, distinct = _encode(found.combine_chunks() if found.num_chunks != 1 else found.chunk(0))
        values[column] = ["", *distinct]
        attributes[:, position] = codes + 1
    return tuple(sources), values, attributes
