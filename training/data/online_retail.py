"""Online Retail II (UCI, CC BY 4.0) as a data set: purchases of a UK gift wholesaler.

Cleaning: known customer, positive price, stock codes that begin with five digits (the others are postage, fees and
corrections), codes in upper case, one event per customer, item and invoice time. Times are read as UTC. What the source
does not have is derived, never from who bought what:

- `published_at`: the first sale of the item in the whole file, guests included. Consumers treat an item as not there
  before, so that listing items of the future leaks nothing into a training that ends earlier.
- `price`: the unit price at that first sale; later prices are the future's. `title`: the description at the first sale
  that has one.
- `category`: the product word of the title (see `categories.py`), of those that the titles of the first 90 days make.
  `creator_id`: the first three digits of the stock code, the wholesaler's own series, which stands in for a supplier.
- `country` of a user: the one of the first invoice.
"""
# ruff: noqa: S608  SQL is made of our own names

import codecs
import glob
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.dataset import INTERACTIONS, ITEMS, REJECTS, USERS
from contracts.errors import DataError, NotFound
from training.data import categories
from training.data.contract import validate_folder
from training.data.engine import connect, parquet, quoted, text, write_query
from training.data.folder import publish, write_config
from training.data.report import Rejected, Report, too_many
from training.data.structure import file_kind

CONFIG = """\
name = "online-retail-2"
licence = "CC BY 4.0: Chen, D. (2019), Online Retail II, UCI Machine Learning Repository"
clock = "log_end"
slices = ["country"]
max_reject_share = 0.01

[[positives]]
event = "purchase"

[[features]]
column = "country"
table = "users"
kind = "categorical"

[[features]]
column = "category"
table = "items"
kind = "categorical"

[[features]]
column = "creator_id"
table = "items"
kind = "categorical"

[[features]]
column = "price"
table = "items"
kind = "numeric"

[[features]]
column = "title"
table = "items"
kind = "text"
"""

# Ours → how the published editions of the file spell it.
SPELLINGS = {
    "stock_code": ("StockCode",),
    "description": ("Description",),
    "quantity": ("Quantity",),
    "invoice_date": ("InvoiceDate",),
    "unit_price": ("UnitPrice", "Price"),
    "customer_id": ("CustomerID", "Customer ID", "Customer_ID"),
    "country": ("Country",),
}
GOODS = "^[0-9]{5}"
EARLY_D = 90  # items first sold in the first so many days of the file name the categories
# What cleaning leaves out by its own rule, in this order. Anything else that is wrong counts against max_reject_share.
CLEANING = {
    "no_customer": ("CustomerID", "customer_id IS NULL"),
    "not_goods": ("StockCode", f"NOT regexp_matches(item_id, '{GOODS}')"),
    "no_price": ("UnitPrice", "unit_price <= 0"),
}
BROKEN = {
    "null_id": ("StockCode", "item_id IS NULL OR item_id = ''"),
    "id_too_long": ("StockCode", "length(item_id) > 256 OR contains(item_id, chr(0))"),
    "bad_timestamp": ("InvoiceDate", "sold_at IS NULL"),
    "future_timestamp": ("InvoiceDate", "sold_at > now()"),
    "non_finite": ("UnitPrice", "unit_price IS NULL OR NOT isfinite(unit_price)"),
    "bad_quantity": ("Quantity", "quantity IS NULL OR NOT isfinite(quantity)"),
}


def import_online_retail(source: Path, out: Path, *, progress: Callable[[str], None] | None = None) -> Report:
    """Read the file (or the folder that holds it) and write a data set to `out`, whole or not at all.

    Raises:
        NotFound: no such source. DataError: not this data, or too much of it broken. UsageError: `out` is in use.
    """
    say = progress or (lambda _: None)
    path = _find(Path(source))
    with publish(Path(out), {"made_by": "import online-retail"}) as folder, connect(f"importing {path}") as connection:
        say("reading invoice lines")
        _read_lines(connection, path)
        rejected = _rejected(connection)
        total = connection.execute("SELECT count(*) FROM lines").fetchall()[0][0]
        share = 0.01
        too_many(path, total, [r for r in rejected if r.reason in BROKEN], share)
        say("events")
        connection.execute("CREATE TEMP TABLE good AS SELECT * EXCLUDE (why, row) FROM lines WHERE why IS NULL")
        events = write_query(
            connection,
            "SELECT customer_id AS user_id, item_id, sold_at AS timestamp, 'purchase' AS event, "
            "sum(quantity)::DOUBLE AS value FROM (SELECT DISTINCT * FROM good) "
            "GROUP BY ALL ORDER BY timestamp, user_id, item_id",
            folder / INTERACTIONS,
        )
        if not events:
            raise DataError(f"{path}: no invoice line is left after cleaning")
        say("items and users")
        write_config(folder, CONFIG)
        _write_items(connection, folder / ITEMS)
        write_query(
            connection,
            "SELECT customer_id AS user_id, min_by(country, (sold_at, country)) AS country FROM good "
            "GROUP BY 1 ORDER BY 1",
            folder / USERS,
        )
        say("rejects")
        write_query(
            connection,
            "SELECT 'interactions' AS \"table\", row, CASE why "
            + " ".join(f"WHEN '{why}' THEN '{column}'" for why, (column, _) in (BROKEN | CLEANING).items())
            + ' END AS "column", why AS reason, to_json({item: item_id, customer: customer_id, sold_at: sold_at, '
            "quantity: quantity, price: unit_price, country: country, description: description})::VARCHAR AS record "
            "FROM lines WHERE why IS NOT NULL ORDER BY row",
            folder / REJECTS,
        )
        say("checking the result")
        validate_folder(folder)
    return Report(
        Path(out), share, {"interactions": total}, tuple(rejected), {"interactions": events}, frozenset(CLEANING)
    )


def _find(source: Path) -> Path:
    if source.is_dir():
        found = sorted(p for p in source.iterdir() if p.suffix in {".parquet", ".csv"})
        if len(found) != 1:
            names = ", ".join(p.name for p in found) or "none"
            raise NotFound(f"{source} must hold one .parquet or .csv file; it holds {names}")
        return found[0]
    if not source.exists():
        raise NotFound(f"{source} is not there", next_command="streamrec data import online-retail FILE OUT")
    return source


def _read_lines(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Table `lines`: one row an invoice line, typed, with `row` (from 0) and `why` it is left out (or null)."""
    kind = file_kind(path)
    if path.suffix == ".csv" and kind == "a file of another format":
        encoding = "utf-8" if _is_utf8(path) else "latin-1"
        source = f"read_csv({text(glob.escape(str(path)))}, header = true, all_varchar = true, encoding = '{encoding}')"
    elif kind == "a Parquet file":
        source = parquet(path)
    else:
        hint = "; unpack it first" if "archive" in kind else ""
        raise DataError(f"{path} is {kind}, not the Parquet or CSV file of Online Retail II{hint}")
    described = {d[0]: str(d[1]) for d in connection.sql(f"SELECT * FROM {source} LIMIT 0").description}
    columns = {ours: _column(path, described, spellings) for ours, spellings in SPELLINGS.items()}
    if kind == "a Parquet file":
        _check_types(path, connection.sql(f"SELECT * FROM {source} LIMIT 0").to_arrow_table().schema, columns)
    why = " ".join(f"WHEN {test} THEN '{name}'" for name, (_, test) in (CLEANING | BROKEN).items())
    connection.execute(
        f"""
        CREATE TEMP TABLE lines AS SELECT *, CASE {why} END AS why FROM (
            SELECT row_number() OVER () - 1 AS row,
                upper(trim({columns["stock_code"]}::VARCHAR)) AS item_id,
                nullif(regexp_replace(trim({columns["customer_id"]}::VARCHAR), '\\.0+$', ''), '') AS customer_id,
                try_cast({columns["invoice_date"]} AS TIMESTAMP)::TIMESTAMPTZ AS sold_at,
                try_cast({columns["quantity"]} AS DOUBLE) AS quantity,
                try_cast({columns["unit_price"]} AS DOUBLE) AS unit_price,
                nullif(trim({columns["description"]}::VARCHAR), '') AS description,
                nullif(trim({columns["country"]}::VARCHAR), '') AS country
            FROM {source})
        """
    )


def _is_utf8(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        try:
            while chunk := file.read(1 << 20):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def _column(path: Path, described: dict[str, str], spellings: tuple[str, ...]) -> str:
    for name in spellings:
        if name in described:
            return quoted(name)
    raise DataError(f"{path}: column `{spellings[0]}` is missing; the file has {', '.join(described)}")


def _check_types(path: Path, schema: pa.Schema, columns: dict[str, str]) -> None:
    for ours in ("quantity", "unit_price"):
        kind = schema.field(columns[ours].strip('"')).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
            raise DataError(f"{path}: column {columns[ours]} is {kind}; it must be a number")
    kind = schema.field(columns["invoice_date"].strip('"')).type
    if not pa.types.is_timestamp(kind) and not pa.types.is_string(kind):
        raise DataError(f"{path}: column {columns['invoice_date']} is {kind}; it must be a timestamp")


def _rejected(connection: duckdb.DuckDBPyConnection) -> list[Rejected]:
    reasons = CLEANING | BROKEN
    rows = connection.execute(
        "SELECT why, count(*), list_sort(arg_min(row, row, 5)) FROM lines WHERE why IS NOT NULL GROUP BY 1 "
        "ORDER BY 2 DESC, 1"
    ).fetchall()
    return [Rejected("interactions", reasons[why][0], why, count, tuple(first)) for why, count, first in rows]


def _write_items(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Every item that a known customer bought; its first sale may have been a guest's."""
    table = connection.sql(
        f"""
        WITH sold AS (SELECT * FROM lines WHERE why IS NULL OR why = 'no_customer'
                      AND regexp_matches(item_id, '{GOODS}') AND unit_price > 0 AND sold_at IS NOT NULL),
        firsts AS (SELECT item_id, min(sold_at) AS published_at, min_by(unit_price, (sold_at, unit_price)) AS price,
                   min_by(description, (sold_at, description)) FILTER (description IS NOT NULL) AS title
                   FROM sold GROUP BY item_id)
        SELECT item_id, published_at, 'series-' || left(item_id, 3) AS creator_id, title, price,
               published_at < (SELECT min(sold_at) FROM sold) + INTERVAL {EARLY_D} DAY AS early
        FROM firsts WHERE item_id IN (SELECT item_id FROM good) ORDER BY item_id
        """
    ).to_arrow_table()
    early = table.column("early").to_pylist()
    category = pa.array(categories.by_title(table.column("title").to_pylist(), early), pa.string())
    pq.write_table(table.drop_columns("early").add_column(1, "category", category), path)
