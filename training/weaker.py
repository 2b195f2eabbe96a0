"""What a data set lacks, and what is weaker for it: the warnings of a training that goes on all the same."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from contracts.dataset import INTERACTIONS, DatasetConfig
from contracts.errors import DataError
from features import duck
from features.labels import LabelRule
from training.data import read

FEW_POSITIVES = 1_000
MISSING = 0.5  # of the rows
METADATA = ("category", "creator_id", "title", "price")
SAYS_NOTHING = ("", "unknown")  # the second is what the contract puts in the place of a category that is missing


def what_is_weaker(folder: Path, config: DatasetConfig, until_us: int) -> tuple[str, ...]:
    """One sentence each, of the rows before `until_us`.

    Raises:
        DataError: one item only: there is nothing to choose from.
    """
    return (*_log(folder, config, until_us), *_metadata(folder), *_features(folder, config, until_us))


def _log(folder: Path, config: DatasetConfig, until_us: int) -> list[str]:
    path = folder / INTERACTIONS
    value = "value" if "value" in read.schema(path).names else "NULL"
    weight = LabelRule.of(config).sql(value)
    with duck.connect() as db:
        found = db.execute(
            f"SELECT count(*), sum(CAST({weight} > 0 AS INTEGER)), count(DISTINCT user_id), count(DISTINCT item_id)"  # noqa: S608
            ' FROM read_parquet(?) WHERE epoch_us("timestamp") < ?',
            [str(path / "**/*.parquet") if path.is_dir() else str(path), until_us],
        ).fetchone()
    events, positives, users, items = (int(n or 0) for n in found or (0, 0, 0, 0))
    if read.items(folder, ["item_id"]).num_rows == 1:
        raise DataError(
            f"{config.name} has one item: there is nothing to choose from",
            next_command=f"streamrec data describe {folder}",
        )
    said = []
    if positives < FEW_POSITIVES:
        said.append(
            f"{positives} positive events: figures are noisy and the learned models little better than popularity"
        )
    if users == 1:
        said.append("one user: nothing is learned from others, the graph and the two-tower know this one alone")
    if items == 1:
        said.append("events on one item only: the other items are known by their attributes alone")
    if positives and positives == events:
        said.append(
            "every event is a positive: click rates stay at their defaults, and nothing tells shown from unseen"
        )
    return said


def _metadata(folder: Path) -> list[str]:
    table = read.items(folder)
    lacking = [name for name in METADATA if not _says_something(table, name)]
    if len(lacking) == len(METADATA):
        return ["items have no metadata: content retrieval and new items are guessed by popularity"]
    return [f"items have no {', no '.join(lacking)}: what rests on it says nothing"] if lacking else []


def _says_something(table: pa.Table, name: str) -> bool:
    if name not in table.column_names:
        return False
    column = pc.fill_null(table[name].cast(pa.string()), "")
    nothing = pc.is_in(column, value_set=pa.array(SAYS_NOTHING, pa.string()))
    return not pc.all(nothing).as_py()


def _features(folder: Path, config: DatasetConfig, until_us: int) -> list[str]:
    said = []
    for table in ("users", "items", "interactions"):
        wanted = [a.column for a in config.features if a.table == table]
        if wanted:
            said += [
                f"`{name}` of {table} {why}" for name, why in _poor(_read(folder, table, wanted, until_us), wanted)
            ]
    return said


def _read(folder: Path, table: str, wanted: Sequence[str], until_us: int) -> pa.Table | None:
    if table == "interactions":
        there = read.schema(folder / INTERACTIONS).names
        return read.interactions(folder, [name for name in wanted if name in there], until_us=until_us)
    return read.items(folder) if table == "items" else read.users(folder)


def _poor(table: pa.Table | None, wanted: Sequence[str]) -> list[tuple[str, str]]:
    """Columns that say nothing, or nothing in half of the rows."""
    out = []
    for name in wanted:
        if table is None or name not in table.column_names:
            out.append((name, "is not there: models that read it see the default"))
            continue
        missing = table[name].null_count / max(table.num_rows, 1)
        if missing >= MISSING:
            out.append((name, f"is missing in {missing:.0%} of the rows: it tells those with it from those without"))
        elif table.num_rows > 1 and pc.count_distinct(table[name]).as_py() <= 1:
            out.append((name, "is constant: it is taken out of the models"))
    return out
