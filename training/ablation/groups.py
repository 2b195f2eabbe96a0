"""Columns of the ranker that say the same kind of thing, by what they are made from. A column is in one group."""

from contracts.serving import SOURCES
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
        return f"likeness by {source}" if source else "taste in categories, creators, prices"
    if column in CLOCK_COLUMNS:
        return "clock"
    return "context" if column in USER_CATEGORICAL else "activity of the user"
