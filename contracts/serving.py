"""Words that answers, exposures and metrics share."""

from typing import Literal

# Best to worst. A consumer gets the best rung that works, by name.
Degradation = Literal["full", "stale_features", "simple_ranking", "batch", "cached", "popularity"]
DEGRADATIONS: tuple[Degradation, ...] = (
    "full",
    "stale_features",
    "simple_ranking",
    "batch",
    "cached",
    "popularity",
)
# What a ranking bundle may hold, from simple to complex. An answer that one of them ordered is of the rung `full`.
Ranker = Literal["linear", "trees", "dcn", "ensemble"]
RankerChoice = Literal["best", Ranker]  # best: a training decides
RANKERS: tuple[Ranker, ...] = ("linear", "trees", "dcn", "ensemble")
# What ordered the candidates. `logistic`, the light ranker of the fallback bundle, and `retrieval` are both the rung
# `simple_ranking`.
RankedBy = Literal["linear", "trees", "dcn", "ensemble", "logistic", "retrieval", "batch", "cached", "popularity"]

# The rung that a request starts at. It may end lower, never higher. `retrieval` is `simple_ranking` without logistic,
# `lists` is batch → cached → popularity, which needs no compute thread, `at_hand` cached → popularity, which needs no
# read of the online store either.
Aim = Literal["full", "simple_ranking", "retrieval", "lists", "at_hand"]
UNRANKED: frozenset[Aim] = frozenset({"lists", "at_hand"})

# Why a process came to answer from another rung.
Cause = Literal[
    "retrieval", "ranking", "online_store", "fallback", "stale_values", "overload", "deadline", "fault", "recovered"
]

Variant = Literal["champion", "candidate", "control", "fallback"]
Outcome = Literal["ok", "empty", "refused", "error"]

SOURCES = ("two_tower", "graph", "content", "trending", "item_item")
EMBEDDING_DIM = 128
HISTORY_LENGTH = 10
