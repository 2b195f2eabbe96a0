"""What is seasonal on the real Online Retail II log: a month against the opposite season, and itself a year before.

    python -m benchmarks.seasonality ../shared/data/online-retail-2/transactions.parquet

One purchase of each customer and month, SciPy's engine. The log goes from December 2009 to September 2011: it has one
November, so that November has no past in it, and December and July have one.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from features import duck
from monitoring.drift.engines.choose import choose
from monitoring.drift.service.judgement import judgement
from monitoring.drift.service.thinned import one_per_user
from training.data.categories import by_title

FEATURES = ("price", "quantity", "country", "christmas")
COLUMNS = (*FEATURES, "timestamp", "category", "item_id")
# (reference, window, the same month a year before): each as YYYY-MM.
PAIRS = (
    ("2010-07", "2010-12", "2009-12"),
    ("2010-11", "2011-07", "2010-07"),
    ("2010-12", "2011-06", "2010-06"),
    ("2010-07", "2010-11", None),
)


def purchases(path: Path) -> pa.Table:
    """Cleaned as the importer does: known customers, positive prices, goods."""
    db = duck.connect()
    lines = db.sql(
        f"""SELECT CAST(CAST(CustomerID AS BIGINT) AS VARCHAR) AS user_id, upper(StockCode) AS item_id,
            CAST(InvoiceDate AS TIMESTAMP) AS timestamp, UnitPrice AS price, CAST(Quantity AS DOUBLE) AS quantity,
            Country AS country FROM read_parquet('{path}')
            WHERE CustomerID IS NOT NULL AND UnitPrice > 0 AND regexp_matches(StockCode, '^[0-9]{{5}}')
            ORDER BY InvoiceDate, CustomerID, StockCode"""  # noqa: S608
    ).to_arrow_table()
    titles = db.sql(
        f"""SELECT upper(StockCode) AS item_id, max(Description) AS title FROM read_parquet('{path}')
            WHERE regexp_matches(StockCode, '^[0-9]{{5}}') GROUP BY 1 ORDER BY 1"""  # noqa: S608
    ).to_arrow_table()
    at = pc.index_in(lines["item_id"], value_set=titles["item_id"].combine_chunks())
    words = pa.array(by_title(titles["title"].to_pylist()))
    festive = pa.array(["yes" if "CHRISTMAS" in (t or "") else "no" for t in titles["title"].to_pylist()])
    return lines.append_column("category", words.take(at.combine_chunks())).append_column(
        "christmas", festive.take(at.combine_chunks())
    )


def judged(lines: pa.Table, seed: int = 0) -> list[dict[str, Any]]:
    month = pc.strftime(lines["timestamp"], "%Y-%m")

    def of(name: str) -> pa.Table:
        return one_per_user(lines.filter(pc.equal(month, name)), COLUMNS, seed=seed)

    out = []
    for flat, window, past in PAIRS:
        found = judgement(
            of(flat),
            of(window),
            FEATURES,
            engine=choose("scipy"),
            season=of(past) if past else None,
            no_season="the log has no earlier November",
            seed=seed,
        )
        checks = {
            check: {"verdict": f.verdict, "effect": f.flat.effect, "season": f.season.effect if f.season else None}
            for check, f in found.found.items()
            if f.verdict in ("drift", "seasonal")
        }
        out.append(
            {"reference": flat, "window": window, "season": past, "users": found.rows, "verdict": found.verdict}
            | {"checks": checks}
        )
    return out


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.seasonality", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("source", type=Path)
    print(json.dumps(judged(purchases(parser.parse_args(arguments).source)), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
