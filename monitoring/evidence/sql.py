"""Metrics that an operator wrote in SQL, over the tables exposures, attempts and events of the release.

    SELECT unit, sum(numerator) AS numerator, sum(denominator) AS denominator FROM … GROUP BY unit

DuckDB in memory: one SELECT, no files, no extensions, a bound on time and memory. What goes wrong is words, no figure.
"""

import threading
from collections.abc import Mapping

import duckdb
import pyarrow as pa

from features import duck
from monitoring.evidence.cells import Sums

TIMEOUT_S = 20.0
MEMORY = "1GB"

_SUMS = """
WITH arm AS (
    SELECT DISTINCT unit, element_at(experiments, $release)[1] AS arm FROM exposures
    WHERE len(element_at(experiments, $release)) > 0
), figures AS (
    SELECT unit::VARCHAR AS unit, sum(numerator::DOUBLE) AS x, sum(denominator::DOUBLE) AS y FROM ({query}) GROUP BY 1
)
SELECT arm.arm, count(*), sum(x), sum(y), sum(x * x), sum(y * y), sum(x * y), count(*) FILTER (x > 0)
FROM arm JOIN figures USING (unit) WHERE y > 0 AND x IS NOT NULL GROUP BY 1
"""


def sql_sums(
    query: str, release: str, tables: Mapping[str, pa.Table], *, timeout_s: float = TIMEOUT_S
) -> dict[str, Sums] | str:
    """Sums over units of each arm; or why there are none.

    tables: `exposures`, `attempts`, `events`, each from the start of the analysis on.
    """
    settings: dict[str, str | bool | int | float | list[str]] = {
        "threads": 1,
        "memory_limit": MEMORY,
        "enable_external_access": False,
        "autoload_known_extensions": False,
    }
    db = duck.connect(**settings)
    late = threading.Timer(timeout_s, db.interrupt)
    try:
        for name, table in tables.items():
            db.register(name, table)
        db.execute("SET python_enable_replacements = false")  # else it could name any variable of this process
        db.execute("SET lock_configuration = true")
        statements = db.extract_statements(query)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            return "the SQL is not one SELECT"
        late.start()
        rows = db.execute(_SUMS.format(query=query.strip().rstrip(";")), {"release": release}).fetchall()
    except duckdb.InterruptException:
        return f"the SQL took over {timeout_s:g} s"
    except duckdb.Error as error:
        return f"the SQL failed: {str(error).strip().splitlines()[0][:500]}"
    finally:
        late.cancel()
        db.close()
    return {arm: Sums(n, x, y, xx, yy, xy, on) for arm, n, x, y, xx, yy, xy, on in rows}
