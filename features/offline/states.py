"""Users as the online store would show them at a moment, straight from the log: evaluation, batch, materialisation."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.offline import users
from features.offline.log import Log, open_log
from features.online.base import Stamped, UserState


def user_states_as_of(
    folder: Path,
    user_ids: Sequence[str] | None,
    t_us: int,
    *,
    embeddings: Mapping[str, NDArray[np.float32]] | None = None,
) -> dict[str, UserState]:
    """States from events strictly before `t_us`; every stamp and the watermark are `t_us`.

    Args:
        user_ids: None: everybody with a past. A given user without one has an empty state.
        embeddings: user → float32 [128], where a model has made some.

    Raises:
        DataError: the folder is no data set.
    """
    with open_log(folder) as log:
        return states(log, user_ids, t_us, embeddings=embeddings)


def states(
    log: Log,
    user_ids: Sequence[str] | None,
    t_us: int,
    *,
    embeddings: Mapping[str, NDArray[np.float32]] | None = None,
) -> dict[str, UserState]:
    """`user_states_as_of` on an open log."""
    if user_ids is None:
        user_ids = known_users(log, t_us)
    moments = [t_us] * len(user_ids)
    batch = users.batch_features(log, user_ids, moments)
    last = users.last_interactions(log, user_ids, moments)
    given = embeddings or {}
    out = {}
    for user_id, features, recent in zip(user_ids, batch, last, strict=True):
        stamped = {name: Stamped(value, t_us) for name, value in features.items()}
        if user_id in given:
            stamped["user_embedding_128d"] = Stamped(given[user_id], t_us)
        out[user_id] = UserState(user_id, stamped, recent, None, t_us)
    return out


def known_users(log: Log, t_us: int) -> list[str]:
    """Everybody with an event strictly before `t_us`, in the order of the ids."""
    found = log.db.execute("SELECT DISTINCT user_id FROM log WHERE at_us < ? ORDER BY user_id", [t_us]).fetchall()
    return [row[0] for row in found]
