"""What a re-ranker reads of the blend's candidates: agreement with the user's history, recency, price, and who asks.

Everything is computed from one `Past`, so a row at a moment knows only what was before it. Legend: u users of a chunk,
K candidates of each, N items, U users.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from training.baselines import item_knn
from training.baselines.blend import Blend
from training.baselines.past import Past
from training.interactions import DAY_US

POPULARITY_D = (1.0, 3.0, 7.0, 14.0, 30.0, 60.0, 180.0)
TRENDS_D = ((3.0, 14.0), (7.0, 60.0), (14.0, 180.0))
HISTORIES_D = (30.0, 60.0, 120.0, None)
BASKET_HALF_LIFE_D = 90.0


Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one moment, ready to be read for any users. histories, last_basket: [U, N]; together: [N, N] basket cosines;
    per_item: name → [N]; per_user: name → [U]; shares: name → ([U, G], group of each item [N]);
    trend: [N], as `user_trend` is the mean of."""

    blend: Blend
    histories: dict[str, csr_matrix]
    last_basket: csr_matrix
    together: csr_matrix
    per_item: dict[str, NDArray[Any]]
    per_user: dict[str, NDArray[Any]]
    shares: dict[str, tuple[NDArray[Any], NDArray[np.int64]]]
    trend: NDArray[np.float64]


def gather(blend: Blend) -> Facts:
    past = blend.past
    log, age = past.positives, past.age_d
    popularity = {h: past.popularity(h) for h in POPULARITY_D}
    baskets, last_basket = _baskets(past)
    history = past.history(60.0)
    weight = np.maximum(np.asarray(history.sum(axis=1), np.float64).ravel(), 1e-9)
    first = np.full(past.n_items, 0.0)
    np.maximum.at(first, log.item, age)
    last = np.full(past.n_items, 1e4)
    np.minimum.at(last, log.item, age)
    price = np.log1p(np.nan_to_num(past.price, nan=0.0))
    trend = np.log1p(popularity[14.0])
    per_item: dict[str, NDArray[Any]] = {f"pop_{h:g}d": np.log(p + 1e-3) for h, p in popularity.items()}
    for short, long in TRENDS_D:
        per_item[f"trend_{short:g}_{long:g}d"] = np.log((popularity[short] + 0.1) / (popularity[long] + 0.1))
    per_item |= {
        "age": np.log1p(first),
        "since_last": np.log1p(last),
        "buyers": np.log1p(np.asarray(blend.met.sum(axis=0)).ravel()),
        "price": price,
    }
    tenure = np.zeros(log.n_users)
    np.maximum.at(tenure, log.user, age)
    idle = np.full(log.n_users, 1e4)
    np.minimum.at(idle, log.user, age)
    per_user: dict[str, NDArray[Any]] = {
        "user_items": np.log1p(np.diff(blend.met.indptr)),
        "user_baskets": np.log1p(baskets),
        "user_idle": np.log1p(idle),
        "user_tenure": np.log1p(tenure),
        "user_price": (history @ price) / weight,
        "user_trend": (history @ trend) / weight,
        "user_newness": np.log1p((history @ first) / weight),
    }
    shares: dict[str, tuple[NDArray[Any], NDArray[np.int64]]] = {}
    for name, codes in (("category", past.category), ("creator", past.creator)):
        groups = np.where(codes < 0, codes.max(initial=-1) + 1, codes).astype(np.int64)
        n_groups = int(groups.max(initial=0)) + 1
        if n_groups < 2 or n_groups > 500:
            continue
        member = csr_matrix((np.ones(past.n_items, np.float32), (np.arange(past.n_items), groups)))
        shares[name] = ((history @ member).toarray() / weight[:, None], groups)
        per_item[f"{name}_pop"] = np.log1p(np.bincount(groups, popularity[14.0], minlength=n_groups))[groups]
    histories = {("met" if h is None else f"{h:g}d"): past.history(h) for h in HISTORIES_D}
    return Facts(blend, histories, last_basket, _together(past), per_item, per_user, shares, trend)


def names(facts: Facts) -> list[str]:
    agreement = [f"agree_{name}" for name in facts.histories] + ["last_basket", "baskets_60d"]
    three = [f"{name}{part}" for name in agreement for part in ("", "_rank", "_share")]
    gaps = ["price_gap", "price_distance", "trend_gap"]
    return [*three, "blend_rank", *facts.per_item, *(f"{n}_share" for n in facts.shares), *gaps, *facts.per_user]


def rows(facts: Facts, users: NDArray[np.int64], candidates: NDArray[np.int64]) -> Floats:
    """float32 [u · K, F]. candidates: int64 [u, K], best of the blend first; -1 reads as item 0, to be thrown away."""
    at = np.maximum(candidates, 0)
    u, k = at.shape
    columns: list[Floats] = []

    def add(values: NDArray[Any]) -> None:
        columns.append(np.broadcast_to(values, (u, k)).astype(np.float32).ravel())

    def add_score(score: NDArray[Any]) -> None:
        own = np.take_along_axis(score, at, 1)
        place = np.empty(own.shape)
        np.put_along_axis(place, np.argsort(-own, axis=1, kind="stable"), np.arange(k)[None, :].astype(float), 1)
        add(own)
        add(np.log1p(place))
        add(own / (own.max(axis=1, keepdims=True) + 1e-9))

    for history in facts.histories.values():
        add_score(facts.blend.agreement(history[users]))
    add_score((facts.last_basket[users] @ facts.together).toarray())
    add_score((facts.histories["60d"][users] @ facts.together).toarray())
    add(np.arange(k)[None, :])
    for values in facts.per_item.values():
        add(values[at])
    for share, groups in facts.shares.values():
        add(np.take_along_axis(share[users], groups[at], 1))
    gap = facts.per_item["price"][at] - facts.per_user["user_price"][users][:, None]
    add(gap)
    add(np.abs(gap))
    add(facts.trend[at] - facts.per_user["user_trend"][users][:, None])
    for values in facts.per_user.values():
        add(values[users][:, None])
    return np.stack(columns, axis=1)


def _baskets(past: Past) -> tuple[NDArray[np.int64], csr_matrix]:
    """Days on which each user took something up [U]; and the items of each user's last day, [U, N]."""
    log = past.positives
    day = log.timestamp_us // DAY_US
    days = np.unique(log.user.astype(np.int64) * 10**6 + day) // 10**6
    last = np.full(log.n_users, -1)
    np.maximum.at(last, log.user, day)
    of_last = day == last[log.user]
    ones = np.ones(int(of_last.sum()), np.float32)
    basket = csr_matrix((ones, (log.user[of_last], log.item[of_last])), shape=(log.n_users, past.n_items))
    basket.sum_duplicates()
    basket.data[:] = 1.0
    return np.bincount(days, minlength=log.n_users), basket


def _together(past: Past) -> csr_matrix:
    """Cosines of items over baskets (a user's day), older baskets counting less; the nearest of each, [N, N]."""
    log = past.positives
    key = log.user.astype(np.int64) * 10**6 + log.timestamp_us // DAY_US
    _, basket = np.unique(key, return_inverse=True)
    weight = np.sqrt(np.exp2(-past.age_d / BASKET_HALF_LIFE_D)).astype(np.float32)
    shape = (int(basket.max(initial=-1)) + 1, past.n_items)
    return item_knn.neighbours(item_knn.cosine(csr_matrix((weight, (basket, log.item)), shape=shape)), 200)
