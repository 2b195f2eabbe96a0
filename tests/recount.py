"""Streaming features counted again from a whole event log, by their definitions and by nothing of `features/`."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

HOUR_US = 3_600_000_000
GAP_US = 30 * 60 * 1_000_000

# item, event, half steps of its value (-1 without one)
Key = tuple[str, str, int]


@dataclass
class Recount:
    """last: user → (time, item, event), newest first, at most 10; session: user → first, last, events of the newest;
    count: key → events of the week; share: … → Σ of values cut to [0, 1]; decayed: … → Σ 2^(-age / 12 h)."""

    last: dict[str, list[tuple[int, str, str]]] = field(default_factory=dict)
    session: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    count: Counter[Key] = field(default_factory=Counter)
    share: dict[Key, float] = field(default_factory=lambda: defaultdict(float))
    decayed: dict[Key, float] = field(default_factory=lambda: defaultdict(float))


def recount(rows: Iterable[Mapping[str, Any]], now_us: int) -> Recount:
    """rows: as `read_events` gives them, each event once. now_us: a whole hour after the last of them."""
    out = Recount()
    moments: dict[str, list[int]] = defaultdict(list)
    interactions: dict[str, set[tuple[int, str, str]]] = defaultdict(set)
    for row in rows:
        at, value = row["timestamp_us"], row["value"]
        moments[row["user_id"]].append(at)
        if row["event"] != "impression":
            interactions[row["user_id"]].add((at, row["item_id"], row["event"]))
        key = (row["item_id"], row["event"], -1 if value is None else min(int(value * 2), 20))
        out.decayed[key] += 2.0 ** (-(now_us - at) / (12 * HOUR_US))
        if at >= now_us - 7 * 24 * HOUR_US:
            out.count[key] += 1
            out.share[key] += 0.0 if value is None else min(max(value, 0.0), 1.0)
    out.last = {user: sorted(found, reverse=True)[:10] for user, found in interactions.items()}
    for user, found in moments.items():
        found.sort(reverse=True)
        newest = [found[0]]
        for at in found[1:]:
            if newest[-1] - at > GAP_US:
                break
            newest.append(at)
        out.session[user] = newest[-1], newest[0], len(newest)
    return out
