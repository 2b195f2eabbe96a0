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
HARDLY = 0.01  # so few that a column is the same for all
METADATA = ("category", "creator_id", "title", "price")
SAYS_NOTHING = ("", "unknown")  # the second is what the contract puts in the place of a category that is missing


def what_is_weaker(folder: Path, config: DatasetConfig, until_us: int) -> tuple[str, ...]:
    """One sentence each, of the rows before `until_us`.

    Raises:
        DataError: one item only: there is nothing to choose from.
    """
    return (*_log(folder, config, until_us), *_metadata(folder, config), *_features(folder, config, until_us))


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


def _metadata(folder: Path, config: DatasetConfig) -> list[str]:
    """Of the columns that the models read whether declared or not. Those that are declared are told of as features."""
    table = read.items(folder)
    missing = {name: _share(_gone(table[name])) if name in table.column_names else 1.0 for name in METADATA}
    lacking = [name for name in METADATA if missing[name] >= 1]
    if len(lacking) == len(METADATA):
        return ["items have no metadata: content retrieval and new items are guessed by popularity"]
    said = [f"items have no {', no '.join(lacking)}: what rests on it says nothing"] if lacking else []
    declared = {a.column for a in config.features if a.table == "items"}
    return said + [
        f"`{name}` of items is missing in {share:.0%} of the rows: what rests on it says nothing of those"
        for name, share in missing.items()
        if MISSING <= share < 1 and name not in declared
    ]


def _gone(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """bool: null, no number, or a word that says nothing."""
    if pa.types.is_primitive(column.type):
        return pc.is_null(column, nan_is_null=True)
    return pc.is_in(pc.fill_null(column.cast(pa.string()), ""), value_set=pa.array(SAYS_NOTHING, pa.string()))


def _share(gone: pa.ChunkedArray) -> float:
    """Of the rows; 1 without a row."""
    return (pc.sum(gone).as_py() or 0) / len(gone) if len(gone) else 1.0


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
    """Columns that say nothing, or nothing in half of the rows, or in some and the same in the others."""
    out = []
    for name in wanted:
        if table is None or name not in table.column_names:
            out.append((name, "is not there: models that read it see the default"))
            continue
        gone = _gone(table[name])
        missing = _share(gone)
        constant = table.num_rows > 1 and pc.count_distinct(table[name].filter(pc.invert(gone))).as_py() <= 1
        if constant and missing <= HARDLY:
            out.append((name, "is constant: it is taken out of the models"))
        elif constant or missing >= MISSING:
            out.append((name, f"is missing in {missing:.0%} of the rows: it tells those with it from those without"))
    return out
