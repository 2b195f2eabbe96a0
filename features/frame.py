"""Rows of the ranker as a table: the one shape in which training's reference and the service's log meet.

A dense column of `features.ranking.row_schema` is a float column of the same name. A categorical one is a column of
words, since the row holds a hash of them (`creator`, whose words no log keeps, is the hash's number as a word). What
the row holds as 0 because it is not known is null. `default.NAME`, for each feature of the registry that rows are made
from: its default was taken, as nothing was known or it was too old.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.ranking import ITEM_COUNTS, ITEM_RATES, USER_COUNTS, row_schema

SCHEMA = row_schema()
DENSE = tuple(column.name for column in SCHEMA.columns if column.kind == "dense")
WORDS = tuple(column.name for column in SCHEMA.columns if column.kind == "categorical")
FEATURES = (*DENSE, *WORDS)
# A row's column → the feature of the registry that it is made from, where that is one alone.
MADE_FROM: Mapping[str, str] = {
    **{f"log_{name}": name for name in (*ITEM_COUNTS, *USER_COUNTS)},
    **{name: name for name in ITEM_RATES},
    "category_share": "user_category_preferences",
    "category_lift": "user_category_preferences",
    "log_hours_since_last": "user_last_10_interactions",
    "history_length": "user_last_10_interactions",
}
REGISTERED = tuple(sorted(set(MADE_FROM.values())))
# A column says nothing in rows where the other one is 0.
KNOWN_BY = {"log_price": "price_known"}
DEFAULT = "default."


def default_flag(name: str) -> str:
    """The column of flags of a feature of the registry."""
    return DEFAULT + name


def feature_columns(
    rows: NDArray[np.float32], words: Mapping[str, Sequence[str | None]], defaults: Mapping[str, Any]
) -> dict[str, pa.Array]:
    """Columns `FEATURES` and the flags.

    rows: float32 [R, F] of `row_schema`; words: R words of `category`, `country` and `device`, null or empty unknown;
    defaults: feature of the registry → bool [R], null where nothing was said of it.
    """
    out: dict[str, pa.Array] = {}
    for at, name in enumerate(DENSE):
        values = np.ascontiguousarray(rows[:, at])
        missing = ~np.isfinite(values)
        if name in KNOWN_BY:
            missing |= rows[:, SCHEMA.at(KNOWN_BY[name])] == 0
        out[name] = pa.array(values, pa.float32(), mask=missing)
    for name in WORDS:
        if name in words:
            out[name] = pa.array([word or None for word in words[name]], pa.string())
        else:
            numbers = np.nan_to_num(rows[:, SCHEMA.at(name)]).astype(np.int64)
            out[name] = pa.array([f"#{n}" if n else None for n in numbers.tolist()], pa.string())
    for name in REGISTERED:
        flags = defaults.get(name)
        if not isinstance(flags, pa.Array):
            flags = pa.nulls(len(rows), pa.bool_()) if flags is None else pa.array(flags, pa.bool_())
        out[default_flag(name)] = flags
    return out


def taken_by_default(used: Collection[Any]) -> dict[str, bool]:
    """Feature of the registry → its default was taken; from the `FeatureUsed` of one answer."""
    return {one.name: one.source == "default" for one in used}
