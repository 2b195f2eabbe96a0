"""What a check of a data set found, and when it is too much."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contracts.dataset import CONFIG, INTERACTIONS, ITEMS, REJECTS, USERS
from contracts.errors import DataError

TABLES = {"interactions": INTERACTIONS, "items": ITEMS, "users": USERS}


@dataclass(frozen=True)
class Rejected:
    """Rows of one table left out for one reason. first_rows: up to 5 row numbers, from 0."""

    table: str
    column: str
    reason: str
    count: int
    first_rows: tuple[int, ...]


@dataclass(frozen=True)
class Report:
    """What a check found. rows: rows read by table; rejected: what was left out; accepted: what an importer wrote.

    by_design: reasons that an importer's cleaning declares; they do not count against `max_reject_share`.
    """

    folder: Path
    max_reject_share: float
    rows: Mapping[str, int]
    rejected: tuple[Rejected, ...] = ()
    accepted: Mapping[str, int] = field(default_factory=dict)
    by_design: frozenset[str] = frozenset()

    def rejects(self, table: str) -> int:
        return sum(r.count for r in self.rejected if r.table == table and r.reason not in self.by_design)

    def share(self, table: str) -> float:
        return self.rejects(table) / self.rows[table] if self.rows.get(table) else 0.0

    @property
    def ok(self) -> bool:
        return all(self.share(table) <= self.max_reject_share for table in self.rows)

    def raise_if_too_many(self) -> None:
        """
        Raises:
            DataError: more rejects in a table than the data set allows: column, count and first rows.
        """
        for table, rows in self.rows.items():
            told = [r for r in self.rejected if r.table == table and r.reason not in self.by_design]
            too_many(self.folder / TABLES[table], rows, told, self.max_reject_share)

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "folder": str(self.folder),
            "rows": dict(self.rows),
            "rejects": {table: self.rejects(table) for table in self.rows},
            "accepted": {
                table: self.accepted.get(table, rows - self.rejects(table)) for table, rows in self.rows.items()
            },
            "reject_share": {table: round(self.share(table), 6) for table in self.rows},
            "max_reject_share": self.max_reject_share,
            "reasons": [
                {
                    "table": r.table,
                    "column": r.column,
                    "reason": r.reason,
                    "count": r.count,
                    "first_rows": list(r.first_rows),
                }
                for r in self.rejected
            ],
        }


def too_many(path: Path, rows: int, rejected: Sequence[Rejected], most: float) -> None:
    """
    Raises:
        DataError: the rejected rows are more than a share of `most`: column, count and first rows.
    """
    count = sum(r.count for r in rejected)
    if not rows or count / rows <= most:
        return
    worst = "; ".join(
        f"column `{r.column}`: {r.count:,} rows {r.reason} (first rows {', '.join(map(str, r.first_rows))})"
        for r in sorted(rejected, key=lambda r: -r.count)[:5]
    )
    raise DataError(
        f"{path}: {count:,} of {rows:,} rows ({count / rows:.2%}) are rejected, more than max_reject_share = "
        f"{most:.2%}: {worst}",
        next_command=f"`streamrec data validate DIR` writes {REJECTS}; mend the rows or raise the share in {CONFIG}",
    )
