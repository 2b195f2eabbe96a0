"""The data-set contract, checked: which files, columns and types must be there, and which rows are left out and why.

Structure that is wrong (a missing column, a type, a file that is no Parquet) is an error. A row that is wrong is a
counted reject; more of them than `max_reject_share` is an error again. All of it is SQL over columns: memory does not
grow with rows.
"""
# ruff: noqa: S608  identifiers and strings go through `quoted` and `text`; DuckDB binds no identifiers

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from contracts.dataset import REJECTS, USERS, DatasetConfig
from contracts.errors import DataError, NotFound
from training.data.engine import connect, parquet, quoted, text, write_query
from training.data.folder import ORIGIN
from training.data.report import TABLES, Rejected, Report
from training.data.structure import COLUMNS, IS_KIND, check_config, check_structure, file_kind, plain, read_schema

MAX_ID = 256
MAX_EVENT = 64
EARLIEST, LATEST = "1700-01-01 00:00:00+00", "2262-01-01 00:00:00+00"  # what nanoseconds in 64 bits can hold
SQL_TYPE = {"string": "VARCHAR", "timestamp": "TIMESTAMPTZ", "number": "DOUBLE", "bool": "BOOLEAN"}
FUTURE_TOLERANCE_US = 5 * 60 * 1_000_000  # clocks of machines differ a little
ZONE = r"\d{2}:\d{2}(:\d{2}([.,]\d+)?)?\s*(Z|z|UTC|[+-]\d{2}(:?\d{2})?)$"


@dataclass(frozen=True)
class Checked:
    """An open check: `accepted[table]` is SQL for the good rows in canonical columns and types."""

    connection: duckdb.DuckDBPyConnection
    config: DatasetConfig
    report: Report
    accepted: Mapping[str, str]
    rejects: str  # SQL: table, row, column, reason, record (JSON)


def validate_folder(
    folder: Path,
    *,
    now_us: int | None = None,
    rejects: Path | None = None,
    strict: bool = True,
) -> Report:
    """Check a data set; write the rejected rows to `rejects` when a path is given (also when there are too many).

    Raises:
        NotFound: no such folder. DataError: the structure is wrong, or (strict) too many rows are rejected.
    """
    with checked(folder, now_us=now_us) as check:
        if rejects is not None:
            write_rejects(check, rejects)
        if strict:
            check.report.raise_if_too_many()
        return check.report


def validate_and_keep_rejects(folder: Path, *, now_us: int | None = None) -> Report:
    """As `validate_folder`, not strict, with the rejected rows in the folder's own `rejects.parquet`.

    Without rejects, an older `rejects.parquet` goes, but for that of an import: it records what the source had.

    Raises:
        NotFound, DataError: as `validate_folder`; DataError too when the folder cannot be written.
    """
    path = Path(folder) / REJECTS
    with checked(folder, now_us=now_us) as check:
        try:
            if check.report.rejected:
                write_rejects(check, path)
            elif not (Path(folder) / ORIGIN).exists():
                path.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror or error}") from error
        return check.report


@contextmanager
def checked(folder: Path, *, now_us: int | None = None) -> Iterator[Checked]:
    """Check a folder and keep the check open, for whoever wants the accepted rows."""
    folder = Path(folder)
    if not folder.is_dir():
        if folder.exists():
            raise DataError(
                f"{folder} is {file_kind(folder)}, not a data-set folder", next_command="streamrec data import --help"
            )
        raise NotFound(f"{folder} is not there", next_command="streamrec data synth OUT")
    config = DatasetConfig.read(folder)
    now = time.time_ns() // 1000 if now_us is None else now_us
    schemas = {table: read_schema(folder / name) for table, name in TABLES.items() if table != "users"}
    if (folder / USERS).exists():
        schemas["users"] = read_schema(folder / USERS)
    for table, schema in schemas.items():
        check_structure(folder / TABLES[table], table, schema)
    check_config(folder, config, schemas)
    with connect(f"checking {folder}") as connection:
        rejected: list[Rejected] = []
        rows: dict[str, int] = {}
        accepted: dict[str, str] = {}
        bad: list[str] = []
        for table in ("items", "users", "interactions"):
            if table not in schemas:
                continue
            path = folder / TABLES[table]
            _create_view(connection, path, table, schemas[table], now)
            rows[table] = _count(connection, f"SELECT count(*) FROM {table}__base")
            if rows[table] == 0 and table != "users":
                raise DataError(f"{path} has no rows")
            _find_duplicates(connection, table)
            rejected += _reasons(connection, table)
            accepted[table] = _accepted_sql(table, schemas[table])
            bad.append(_rejects_sql(table, schemas[table]))
            if table == "items":
                connection.execute(f"CREATE TEMP TABLE known_items AS SELECT item_id FROM ({accepted['items']})")
        report = Report(folder, config.max_reject_share, rows, tuple(rejected))
        yield Checked(connection, config, report, accepted, " UNION ALL ".join(bad))


def write_rejects(check: Checked, path: Path) -> None:
    """Write the rejected rows, none too, through a temporary name."""
    partial = path.with_name(f".{path.name}.partial")
    write_query(check.connection, check.rejects, partial)
    partial.replace(path)


def write_accepted(check: Checked, folder: Path) -> None:
    """Write the good rows in canonical columns: items and users by id, interactions as they stand in the source."""
    order = {"items": " ORDER BY item_id", "users": " ORDER BY user_id", "interactions": ""}
    for table, sql in check.accepted.items():
        write_query(check.connection, sql + order[table], folder / TABLES[table])


def _create_view(connection: duckdb.DuckDBPyConnection, path: Path, table: str, schema: pa.Schema, now_us: int) -> None:
    """`{table}__base`: all columns as they are, `__row` (from 0) and `__reason` (`column:reason`, or null)."""
    cases: list[str] = []
    known = COLUMNS[table]
    for name in ("user_id", "item_id"):
        if name in known:
            column = f"src.{quoted(name)}::VARCHAR"
            cases += [
                f"WHEN {column} IS NULL THEN '{name}:null_id'",
                f"WHEN trim({column}) = '' THEN '{name}:empty_id'",
                f"WHEN length({column}) > {MAX_ID} THEN '{name}:id_too_long'",
                f"WHEN contains({column}, chr(0)) THEN '{name}:id_has_nul'",
            ]
    if "event" in known:
        cases += [
            "WHEN src.event IS NULL OR src.event::VARCHAR = '' THEN 'event:null_event'",
            f"WHEN length(src.event::VARCHAR) > {MAX_EVENT} THEN 'event:event_too_long'",
        ]
    for name, spec in known.items():
        if spec.kind == "timestamp" and name in schema.names:
            cases += _time_cases(name, schema, now_us if table == "interactions" else None)
    for name in schema.names:
        kind = plain(schema.field(name).type)
        if pa.types.is_floating(kind):
            # Pandas writes "no price" as NaN; an interaction's NaN is a value that went wrong.
            test = "NOT isfinite" if table == "interactions" else "isinf"
            cases.append(f"WHEN {test}(src.{quoted(name)}) THEN {text(name + ':non_finite')}")
    if table == "interactions":
        cases.append("WHEN src.item_id::VARCHAR NOT IN (SELECT item_id FROM known_items) THEN 'item_id:unknown_item'")
    connection.execute(
        f"CREATE VIEW {table}__base AS SELECT src.*, CASE {' '.join(cases)} END AS __reason FROM "
        f"(SELECT *, (file_index * 1000000000000 + file_row_number)::BIGINT AS __row "
        f"FROM {parquet(path)}) src"
    )


def _time_cases(name: str, schema: pa.Schema, now_us: int | None) -> list[str]:
    column = f"src.{quoted(name)}"
    cases: list[str] = []
    if now_us is not None:
        cases.append(f"WHEN {column} IS NULL THEN '{name}:null_timestamp'")
    if not pa.types.is_timestamp(plain(schema.field(name).type)):
        parsed = f"try_cast({column}::VARCHAR AS TIMESTAMPTZ)"
        cases += [
            f"WHEN {column} IS NOT NULL AND {parsed} IS NULL THEN '{name}:bad_timestamp'",
            f"WHEN NOT regexp_matches({column}::VARCHAR, {text(ZONE)}) THEN '{name}:timestamp_without_zone'",
        ]
        column = parsed
    cases.append(
        f"WHEN {column}::TIMESTAMPTZ NOT BETWEEN TIMESTAMPTZ '{EARLIEST}' AND TIMESTAMPTZ '{LATEST}' "
        f"THEN '{name}:bad_timestamp'"
    )
    if now_us is not None:
        cases.append(
            f"WHEN epoch_us({column}::TIMESTAMPTZ) > {now_us + FUTURE_TOLERANCE_US} THEN '{name}:future_timestamp'"
        )
    return cases


def _find_duplicates(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    """`{table}__twice`: rows that repeat an earlier one. Interactions: in every column. Items, users: the same id.

    Two passes: hashes that stand more than once (few), then an exact comparison of those rows alone.
    """
    columns = [
        d[0] for d in connection.sql(f"SELECT * EXCLUDE (__row, __reason) FROM {table}__base LIMIT 0").description
    ]
    key = {"items": ["item_id"], "users": ["user_id"]}.get(table, columns)
    listed = ", ".join(quoted(c) for c in key)
    connection.execute(
        f"CREATE TEMP TABLE {table}__hashes AS SELECT hash({listed}) AS h FROM {table}__base "
        "WHERE __reason IS NULL GROUP BY h HAVING count(*) > 1"
    )
    connection.execute(
        f"CREATE TEMP TABLE {table}__twice AS SELECT __row FROM (SELECT __row, row_number() OVER "
        f"(PARTITION BY {listed} ORDER BY __row) AS place FROM {table}__base WHERE __reason IS NULL "
        f"AND hash({listed}) IN (SELECT h FROM {table}__hashes)) WHERE place > 1"
    )


def _reasons(connection: duckdb.DuckDBPyConnection, table: str) -> list[Rejected]:
    key = {"items": "item_id", "users": "user_id"}.get(table, "timestamp")
    found = connection.execute(
        f"SELECT why, count(*), list_sort(arg_min(__row, __row, 5)) FROM ("
        f"SELECT __reason AS why, __row FROM {table}__base WHERE __reason IS NOT NULL UNION ALL "
        f"SELECT '{key}:duplicate', __row FROM {table}__twice) GROUP BY why ORDER BY count(*) DESC, why"
    ).fetchall()
    return [
        Rejected(table, why.rpartition(":")[0], why.rpartition(":")[2], count, tuple(rows))
        for why, count, rows in found
    ]


def _accepted_sql(table: str, schema: pa.Schema) -> str:
    parts: list[str] = []
    for name, column in COLUMNS[table].items():
        kind = SQL_TYPE[column.kind]
        value = f"b.{quoted(name)}::{kind}" if name in schema.names else f"NULL::{kind}"
        if column.kind == "number" and name in schema.names:
            value = f"CASE WHEN isnan({value}) THEN NULL ELSE {value} END"
        parts.append(f"{value if column.default is None else f'coalesce({value}, {column.default})'} AS {quoted(name)}")
    parts += [
        f"b.{quoted(name)}{_cast(schema.field(name).type)} AS {quoted(name)}"
        for name in sorted(set(schema.names) - COLUMNS[table].keys())
    ]
    return (
        f"SELECT {', '.join(parts)} FROM {table}__base b "
        f"WHERE b.__reason IS NULL AND b.__row NOT IN (SELECT __row FROM {table}__twice)"
    )


def _cast(kind: pa.DataType) -> str:
    """Columns of the user's own keep their types, but for encodings that are a matter of storage."""
    if pa.types.is_null(kind):
        return "::VARCHAR"
    if pa.types.is_decimal(plain(kind)) or pa.types.is_float16(plain(kind)):
        return "::DOUBLE"
    return "::VARCHAR" if pa.types.is_dictionary(kind) and IS_KIND["string"](kind.value_type) else ""


def _rejects_sql(table: str, schema: pa.Schema) -> str:
    key = {"items": "item_id", "users": "user_id"}.get(table, "timestamp")
    record = "to_json({" + ", ".join(f"{text(n)}: b.{quoted(n)}" for n in schema.names) + "})::VARCHAR"
    return (
        f"SELECT '{table}' AS \"table\", __row AS \"row\", regexp_replace(why, ':[^:]*$', '') AS \"column\", "
        f"regexp_extract(why, '[^:]*$') AS reason, {record} AS record FROM (SELECT b.*, "
        f"coalesce(__reason, '{key}:duplicate') AS why FROM {table}__base b "
        f"WHERE __reason IS NOT NULL OR __row IN (SELECT __row FROM {table}__twice)) b"
    )


def _count(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    row = connection.execute(sql).fetchone()
    return int(row[0]) if row else 0
