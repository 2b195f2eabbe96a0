"""The shape a data set must have: files, columns and types. What is wrong here is an error, not a reject."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

from contracts.dataset import CONFIG, INTERACTIONS, ITEMS, DatasetConfig
from contracts.errors import DataError
from training.data.report import TABLES

RESERVED = frozenset({"__row", "__reason", "__at", "file_row_number", "file_index", "filename"})

Kind = str  # `string`, `timestamp`, `number`, `bool`


@dataclass(frozen=True)
class Column:
    """kind; required: must be a column of the file; default: SQL for null, None when null stays null."""

    kind: Kind
    required: bool = True
    default: str | None = None


COLUMNS: Mapping[str, Mapping[str, Column]] = {
    "interactions": {
        "user_id": Column("string"),
        "item_id": Column("string"),
        "timestamp": Column("timestamp"),
        "event": Column("string"),
        "value": Column("number", required=False),
    },
    "items": {
        "item_id": Column("string"),
        "category": Column("string", default="'unknown'"),
        "published_at": Column("timestamp", default="'1970-01-01 00:00:00+00'::TIMESTAMPTZ"),
        "creator_id": Column("string", required=False),
        "is_promoted": Column("bool", required=False, default="false"),
        "is_flagged": Column("bool", required=False, default="false"),
        "title": Column("string", required=False),
        "price": Column("number", required=False),
    },
    "users": {"user_id": Column("string")},
}


def read_schema(path: Path) -> pa.Schema:
    if not path.exists():
        raise DataError(f"{path.parent} has no {path.name}: a data set needs {INTERACTIONS}, {ITEMS} and {CONFIG}")
    if path.is_file():
        said = file_kind(path)
        if said != "a Parquet file":
            raise DataError(f"{path} is {said}, not a Parquet file")
    try:
        return ds.dataset(path, format="parquet").schema
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is damaged, it cannot be read as Parquet: {str(error).splitlines()[0]}") from error


def file_kind(path: Path) -> str:
    """What a file is, by its first bytes."""
    with path.open("rb") as file:
        head = file.read(4)
    if not head:
        return "an empty file (0 bytes)"
    known = {b"PAR1": "a Parquet file", b"PK\x03\x04": "a zip archive", b"\x1f\x8b": "a gzip archive"}
    for magic, name in known.items():
        if head.startswith(magic):
            return name
    return "a file of another format"


IS_KIND: Mapping[Kind, Callable[[pa.DataType], bool]] = {
    "string": lambda t: pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t),
    "number": lambda t: pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_decimal(t),
    "bool": pa.types.is_boolean,
    "timestamp": lambda t: (
        (pa.types.is_timestamp(t) and t.tz is not None) or pa.types.is_string(t) or pa.types.is_large_string(t)
    ),
}
_WANTED = {
    "string": "string",
    "number": "a number",
    "bool": "bool",
    "timestamp": "timestamp[us, UTC] (or ISO 8601 text with a zone)",
}


def check_structure(path: Path, table: str, schema: pa.Schema) -> None:
    folded: dict[str, str] = {}
    for name in schema.names:
        if name.lower() in folded:
            raise DataError(
                f"{path}: columns `{folded[name.lower()]}` and `{name}` differ only in case, or stand twice"
            )
        if name.lower() in RESERVED:
            raise DataError(f"{path}: column name `{name}` is reserved; rename the column")
        folded[name.lower()] = name
    for name, column in COLUMNS[table].items():
        if name not in schema.names:
            if column.required:
                raise DataError(f"{path}: column `{name}` is missing; the file has {', '.join(schema.names)}")
            continue
        kind = plain(schema.field(name).type)
        if pa.types.is_null(kind) or IS_KIND[column.kind](kind):
            continue
        if column.kind == "timestamp" and pa.types.is_timestamp(kind):
            raise DataError(
                f"{path}: column `{name}` is {kind}: its times have no zone; store it as timestamp[us, UTC]"
            )
        raise DataError(f"{path}: column `{name}` is {kind}; it must be {_WANTED[column.kind]}")
    for name in schema.names:
        kind = plain(schema.field(name).type)
        if not any(
            is_kind(kind) for is_kind in (*IS_KIND.values(), pa.types.is_timestamp, pa.types.is_date, pa.types.is_null)
        ):
            raise DataError(
                f"{path}: column `{name}` is {kind}; a column holds one string, number, bool, date or time a row"
            )


def plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def check_config(folder: Path, config: DatasetConfig, schemas: Mapping[str, pa.Schema]) -> None:
    """Columns that `dataset.toml` names must be there."""
    for attribute in config.features:
        names = schemas[attribute.table].names if attribute.table in schemas else []
        if attribute.column not in names:
            raise DataError(
                f"{folder / CONFIG}: feature `{attribute.column}` is not a column of {TABLES[attribute.table]}"
            )
    everywhere = {name for schema in schemas.values() for name in schema.names}
    for name in config.slices:
        if name not in everywhere:
            raise DataError(f"{folder / CONFIG}: slice `{name}` is not a column of any file")
