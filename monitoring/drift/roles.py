"""Names of columns that are no features: which row it is, what made it, what came of it."""

ID, USER, LABEL, SCORE, POSITION, SOURCES, TIME, LOGGED = (
    "item_id",
    "user_id",
    "label",
    "score",
    "position",
    "sources",
    "timestamp",
    "logged",
)
# Columns that say which row it is or what made it. They are no features.
NO_FEATURES = frozenset(
    {ID, USER, LABEL, POSITION, SOURCES, TIME, LOGGED}
    | {"clock", "request_id", "event_id", "origin", "bento", "retrieval", "ranking", "fallback", "rules"}
    | {"feature_hash", "item_snapshot", "served", "ranked_by", "degradation"}
)
