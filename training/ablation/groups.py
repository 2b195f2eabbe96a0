"""Columns of the ranker that say the same kind of thing, by what they are made from. A column is in one group."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from contracts.serving import SOURCES
from features import inputs
from features.ranking import (
    CLOCK_COLUMNS,
    ITEM_CATEGORICAL,
    ITEM_COLUMNS,
    ITEM_COUNTS,
    ITEM_RATES,
    PAIR_COLUMNS,
    USER_CATEGORICAL,
    RowSchema,
)

GRAPH, TWO_TOWER, TASTE = "likeness by graph", "likeness by two_tower", "taste in categories, creators, prices"
MERGED = ("retrieval", "log_retrieval_rank", "agreeing")


def feature_groups(schema: RowSchema) -> dict[str, tuple[int, ...]]:
    """Group → where its columns are in a row, in the order of the row."""
    groups: dict[str, list[int]] = {}
    for at, name in enumerate(schema.names):
        groups.setdefault(group_of(name), []).append(at)
    return {name: tuple(columns) for name, columns in groups.items()}


def group_of(column: str) -> str:
    """A column that nobody has thought of here goes with the others of its user, its item, or the two together."""
    if column in ITEM_COLUMNS or column in ITEM_CATEGORICAL:
        if column.removeprefix("log_") in ITEM_COUNTS:
            return "popularity of the item"
        return "rates of the item" if column in ITEM_RATES else "attributes of the item"
    if column in PAIR_COLUMNS:
        if column in MERGED or column.startswith(("source_", "brought_")):
            return "scores of retrieval"
        source = next((name for name in SOURCES if column.startswith(f"{name}_")), None)
        return f"likeness by {source}" if source else TASTE
    if column in CLOCK_COLUMNS:
        return "clock"
    return "context" if column in USER_CATEGORICAL else "activity of the user"


def read_by(schema: RowSchema, columns: tuple[int, ...]) -> tuple[str, ...]:
    """What has to be known for these columns when somebody asks: names of features/inputs.py, sorted."""
    return tuple(sorted({name for at in columns for name in inputs.inputs_of(schema.names[at])}))


# --- what a group costs -----------------------------------------------------------------------------------------------

# Group → what `rows` is asked without: its columns stay at nothing, and the time for them is spared.
_WITHHELD: Mapping[str, Mapping[str, Any]] = {
    GRAPH: {"graph_items": None, "graph_user": None, "graph_norms": None},
    TWO_TOWER: {"item_embeddings": None, "query_embedding": None},
}
_HISTORY = {"history": np.empty(0, np.int32), "history_age_h": np.empty(0, np.float32)}
_NO_TASTE: Mapping[str, Any] = {"item_item": None, "features": {}, **_HISTORY}
NO_LIKENESS = {**_WITHHELD[GRAPH], **_WITHHELD[TWO_TOWER]}
NOTHING_OF_ITS_OWN = {**NO_LIKENESS, **_NO_TASTE}
# Group → (asked with, asked without). Both kinds of likeness read the history that taste reads, so taste's own time is
# told where there is no likeness.
COSTED: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    GRAPH: ({}, _WITHHELD[GRAPH]),
    TWO_TOWER: ({}, _WITHHELD[TWO_TOWER]),
    TASTE: (NO_LIKENESS, NOTHING_OF_ITS_OWN),
}
