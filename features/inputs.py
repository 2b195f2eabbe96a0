"""What each column of a ranker's row is computed from: the names by which a framing says what is known when a model
predicts. Features of the registry under their own names, and what a request, the catalogue and retrieval bring.
"""

from collections.abc import Iterable

from contracts.serving import SOURCES
from features import ranking
from features.registry import REGISTRY

HISTORY = "user_last_10_interactions"
COUNTRY, DEVICE, TIME = "request.country", "request.device", "request.time"
CATEGORY, CREATOR = "catalogue.category", "catalogue.creator"
PRICE, PROMOTED, TITLE = "catalogue.price", "catalogue.promoted", "catalogue.title"
RETRIEVAL = "retrieval"  # scores, ranks and vectors of the sources
MET = "user.met"  # what the user took up, and when
ATTRIBUTE = "attribute."  # and a column: what `dataset.toml` says of users

_OF: dict[str, tuple[str, ...]] = {
    **{f"log_{name}": (name,) for name in (*ranking.ITEM_COUNTS, *ranking.USER_COUNTS)},
    **{name: (name,) for name in ranking.ITEM_RATES},
    "log_age_d": ("item_age_days",),
    "log_price": (PRICE,),
    "price_known": (PRICE,),
    "promoted": (PROMOTED,),
    "trend_3_14d": ("item_pop_3d", "item_pop_14d"),
    "trend_7_60d": ("item_pop_7d", "item_pop_60d"),
    "trend_14d_total": ("item_pop_14d", "item_pop_total"),
    "log_category_pop": ("item_pop_14d", CATEGORY),
    "category": (CATEGORY,),
    "creator": (CREATOR,),
    **{f"{part}_{name}": (RETRIEVAL,) for part in ("source", "brought") for name in SOURCES},
    **dict.fromkeys(("retrieval", "log_retrieval_rank", "agreeing"), (RETRIEVAL,)),
    **dict.fromkeys(("two_tower_cosine", "graph_z", "graph_cosine"), (RETRIEVAL,)),
    "category_share": ("user_category_preferences", CATEGORY),
    "category_lift": ("user_category_preferences", CATEGORY),
    "price_gap": (HISTORY, PRICE),
    "price_distance": (HISTORY, PRICE),
    "two_tower_history_max": (HISTORY, RETRIEVAL),
    "two_tower_history_mean": (HISTORY, RETRIEVAL),
    "graph_history_max": (HISTORY, RETRIEVAL),
    "graph_history_mean": (HISTORY, RETRIEVAL),
    "category_in_history": (HISTORY, CATEGORY),
    "creator_in_history": (HISTORY, CREATOR),
    **{
        f"{part}_{name}": (MET, RETRIEVAL)
        for part in ("agree", "log_agree_rank", "agree_share")
        for name in ranking.AGREEMENTS_D
    },
    "log_blend_rank": (MET, RETRIEVAL, "item_pop_3d"),
    "trend_gap": (MET, "item_pop_14d"),
    "age_gap": (MET, "item_age_days"),
    "log_hours_since_last": (HISTORY,),
    "history_length": (HISTORY,),
    "log_seen": (MET,),
    "log_days_met": (MET,),
    "met_trend": (MET, "item_pop_14d"),
    "met_age": (MET, "item_age_days"),
    "met_price": (MET, PRICE),
    **dict.fromkeys(ranking.CLOCK_COLUMNS, (TIME,)),
    "country": (COUNTRY,),
    "device": (DEVICE,),
}


def inputs_of(column: str) -> tuple[str, ...]:
    """Of a column of `row_schema`.

    Raises:
        KeyError: there is no such column, or nobody has said here what it is computed from.
    """
    return _OF[column]


def of_rows() -> tuple[str, ...]:
    """Every input of a ranker's row, sorted."""
    return tuple(sorted({name for column in ranking.row_schema().names for name in inputs_of(column)}))


def known() -> tuple[str, ...]:
    """Every input there is when a model predicts, sorted; attributes of the data set besides."""
    return tuple(sorted({*of_rows(), *(definition.name for definition in REGISTRY), TITLE}))


def withheld(features: Iterable[str] | None) -> tuple[str, ...]:
    """The columns of a row that need an input beyond `features`, in the row's order; None: no column does."""
    if features is None:
        return ()
    there = set(features)
    return tuple(column for column in ranking.row_schema().names if not there.issuperset(inputs_of(column)))
