"""The review queue as a document of the control database, filled from the context log."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from bentos.telemetry.kinds import CONTEXTS
from contracts.errors import ArtifactError, NotFound
from monitoring.frames.log_files import LogFiles
from monitoring.review.select import DAY_US, cases, queued
from monitoring.watch.schema import Review
from registry.bento_store import bundles_of
from registry.control.documents import Documents, change

DOCUMENT = "reviews"
LATE_US = 60_000_000  # a record is written after its answer: a look that came before it would pass it by
_COLUMNS = ("request_id", "timestamp_us", "item_ids", "scores", "top_item_ids", "top_scores")


def items_of(bento: str, home: Path) -> Path:
    """The item table of a Bento, for `fill`; of the latest built where it is "".

    Raises:
        NotFound: there is no such Bento.
    """
    return bundles_of(bento or None, home)["retrieval"] / "items.arrow"


def fill(store: Documents, home: Path, items: Path, rules: Review, now_us: int) -> dict[str, Any]:
    """Look at what was answered since the last time (at first: within a day), up to a minute ago. Returns the queue.

    Args:
        items: table with the column that says what is at stake.

    Raises:
        ArtifactError: the items cannot be read, or have no such column.
    """
    until_us = now_us - LATE_US
    since_us = int(store.read(DOCUMENT)[1].get("until_us", until_us - DAY_US))
    values = _values(items, rules.value)
    log = LogFiles.open(home, CONTEXTS, _COLUMNS, since_us, until_us)
    found = [case for table in log.tables() for case in cases(table.to_pylist(), values, rules)]
    found.sort(key=lambda case: (case["margin"], case["id"]))
    return change(store, DOCUMENT, lambda queue: queued(queue, found, rules, max(until_us, since_us)))


def open_cases(queue: Mapping[str, Any]) -> int:
    return sum(case["state"] == "open" for case in queue.get("cases", ()))


def done(store: Documents, case_id: str, note: str) -> dict[str, Any]:
    """
    Raises:
        NotFound: no such case.
    """

    def step(queue: dict[str, Any]) -> dict[str, Any]:
        if not any(c["id"] == case_id for c in queue.get("cases", ())):
            raise NotFound(f"no case {case_id} is queued", next_command="streamrec monitor review list")
        marked = [{**c, "state": "done", "note": note} if c["id"] == case_id else c for c in queue["cases"]]
        return {**queue, "cases": marked}

    return change(store, DOCUMENT, step)


def _values(path: Path, column: str) -> Mapping[str, float]:
    try:
        with pa.memory_map(str(path)) as file:
            table = pa.ipc.open_file(file).read_all().select(["item_id", column])
        values = table[column].cast(pa.float64()).to_pylist()
    except (OSError, KeyError, pa.ArrowException) as error:
        raise ArtifactError(f"{path} has no column {column} of numbers: {error}") from error
    return {i: v for i, v in zip(table["item_id"].to_pylist(), values, strict=True) if v is not None and v == v}
