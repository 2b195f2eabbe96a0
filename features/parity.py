"""Does serving see what training sees? A log is replayed through the online store and compared with the offline join.

Online: events are folded into the store one by one as the consumer does it, batch features are materialised once a day
as an operator does it (a seeded share of the runs fails, so that values grow old and expire), and at random moments a
user is read and resolved as a request does it. Offline: the point-in-time join (ASOF) over the features' history and
the last 10 events by a window query. Value by value, the two must agree.

The item side does the same for a few moments with many items: the online side takes the item snapshot and the trending
score from `features.streaming.Decayed` folded event by event, the offline side one pass carried through all moments.
"""

import asyncio
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contracts.errors import DataError
from contracts.serving import EMBEDDING_DIM
from features.decayed import Decayed
from features.materialize import item_snapshot, stored_features
from features.offline import items, users
from features.offline.join import as_of_join
from features.offline.leakage import same
from features.offline.log import Log, open_log
from features.offline.states import states
from features.online.base import Interaction, OnlineStore, Stamped, UserState
from features.resolve import resolve, resolve_items
from features.streaming import positive_weight

DAY_US = items.DAY_US
FAILED_RUNS = 0.2  # share of daily materialisations that do not happen
OUTAGE_D = 3  # and once so many in a row, longer than a user feature lives
ITEMS_A_MOMENT = 50


@dataclass(frozen=True, slots=True)
class Mismatch:
    entity: str
    id: str
    timestamp_us: int
    feature: str
    online: Any
    offline: Any


@dataclass(slots=True)
class Parity:
    """What was compared. `values`: feature → values compared; `defaults`: … of which both sides served the default."""

    user_moments: int = 0
    item_moments: int = 0
    values: Counter[str] = field(default_factory=Counter)
    defaults: Counter[str] = field(default_factory=Counter)
    stale: Counter[str] = field(default_factory=Counter)
    mismatches: list[Mismatch] = field(default_factory=list)


def parity(
    folder: Path,
    store: OnlineStore,
    *,
    moments: int = 1_000,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Parity:
    """Compare at `moments` random (user, moment) pairs, and as many (item, moment) pairs.

    Args:
        store: an empty one; the replay fills it.

    Raises:
        DataError: no data set, or no events.
    """
    random = np.random.default_rng(seed)
    result = Parity()
    with open_log(folder) as log:
        pairs = _draw(log, moments, random)
    with open_log(folder, user_ids=sorted({user for user, _ in pairs}), threads=1) as log:  # many small queries
        runs = _runs(log, random)
        asyncio.run(_compare_users(log, store, pairs, runs, result, progress))
    with open_log(folder) as log:
        _compare_items(log, store, -(-moments // ITEMS_A_MOMENT), random, result)
    return result


def _draw(log: Log, count: int, random: np.random.Generator) -> list[tuple[str, int]]:
    """Pairs in time order: a third anywhere in the log, a third right after an event of the user's, and a third at its
    very moment, where an event must not count yet."""
    first, last = log.span_us()
    stamps = np.sort(log.db.execute("SELECT at_us FROM log").fetchnumpy()["at_us"])
    chosen = random.integers(0, len(stamps), count)
    moment = stamps[chosen]
    # Which row of the log, in the order of time, user, item and event: the others of its moment are sorted, no more.
    place = chosen - np.searchsorted(stamps, moment, side="left")
    log.db.register("chosen_rows", pa.table({"number": np.arange(count), "at_us": moment, "place": place}))
    user_ids = log.db.execute(
        """SELECT c.user_id FROM chosen_rows n JOIN (
               SELECT user_id, at_us,
                   row_number() OVER (PARTITION BY at_us ORDER BY user_id, item_id, event) - 1 AS place
               FROM log SEMI JOIN chosen_rows USING (at_us)) c USING (at_us, place)
           ORDER BY n.number"""
    ).fetchnumpy()["user_id"]
    kind = random.integers(0, 3, count)
    later = np.where(kind == 2, 0, random.exponential(DAY_US / 2, count).astype(np.int64) + 1)
    at = np.where(kind == 0, random.integers(first, last + DAY_US, count), moment + later)
    order = np.argsort(at, kind="stable")
    return [(str(user_ids[i]), int(at[i])) for i in order]


def _runs(log: Log, random: np.random.Generator) -> list[int]:
    """Moments of the daily materialisations that succeed."""
    first, last = log.span_us()
    days = list(range(first // DAY_US * DAY_US, last + 2 * DAY_US, DAY_US))
    kept = random.random(len(days)) >= FAILED_RUNS
    out_from = int(random.integers(0, max(1, len(days) - OUTAGE_D)))
    kept[out_from : out_from + OUTAGE_D] = False
    return [day for day, keep in zip(days, kept, strict=True) if keep]


async def _compare_users(
    log: Log,
    store: OnlineStore,
    pairs: Sequence[tuple[str, int]],
    runs: Sequence[int],
    result: Parity,
    progress: Callable[[int, int], None],
) -> None:
    offline = _offline_states(log, pairs, runs)
    events = log.db.execute(
        """SELECT user_id, item_id, event, at_us FROM log WHERE event NOT IN (SELECT unnest(?))
           ORDER BY at_us, user_id, item_id, event""",
        [sorted(log.impressions)],
    ).fetchall()
    # Who is read between one run and the next: only they need to be in that run's materialisation.
    readers: dict[int, set[str]] = {}
    for user, at in pairs:
        run = bisect_left(runs, at + 1) - 1
        if run >= 0:
            readers.setdefault(runs[run], set()).add(user)
    streamed, done_run = 0, -1
    for number, (user, at) in enumerate(pairs):
        run = bisect_left(runs, at + 1) - 1
        if run != done_run and run >= 0:
            done_run, moment = run, runs[run]
            reading = sorted(readers[moment])
            found = states(log, reading, moment, embeddings={u: _embedding(u, moment) for u in reading})
            # A user with no past by then has nothing but the embedding: no model knows somebody it has not met.
            store.write_users({u: stored_features(s, moment) for u, s in found.items() if len(s.batch) > 1})
        until = streamed
        while until < len(events) and events[until][3] < at:
            until += 1
        if until > streamed:
            store.append_interactions([(e[0], Interaction(*e[1:])) for e in events[streamed:until]])
            streamed = until
        store.advance_watermark(at)
        online = resolve(await store.read_user(user), at)
        truth = resolve(offline[number], at)
        result.user_moments += 1
        result.stale.update(online.stale)
        for name, value in truth.features.items():
            _compare(result, "user", user, at, name, online.features[name], value)
        for served, true in zip(online.used, truth.used, strict=True):
            result.defaults[served.name] += served.source == true.source == "default"
            if (served.source, served.age_s) != (true.source, true.age_s):
                online_age, true_age = f"{served.source}, age {served.age_s} s", f"{true.source}, age {true.age_s} s"
                result.mismatches.append(Mismatch("user", user, at, served.name, online_age, true_age))
        progress(number + 1, len(pairs))


def _offline_states(log: Log, pairs: Sequence[tuple[str, int]], runs: Sequence[int]) -> list[UserState]:
    """What each pair's user looked like, by the join. The history also holds the run after the moment: a join that
    reached for the future would find one."""
    around = set()
    for user, at in pairs:
        next_run = bisect_left(runs, at + 1)
        around |= {(user, moment) for moment in runs[max(0, next_run - 3) : next_run + 1]}
    history = sorted(around)
    ids, moments = [user for user, _ in history], [moment for _, moment in history]
    features = users.batch_features(log, ids, moments)
    known = [i for i, row in enumerate(features) if row]
    entities = pa.array([u for u, _ in pairs], pa.string())
    joined = as_of_join(
        pa.table({"entity": entities, "timestamp_us": pa.array([t for _, t in pairs], pa.int64())}),
        pa.table(
            {
                "entity": pa.array([ids[i] for i in known], pa.string()),
                "timestamp_us": pa.array([moments[i] for i in known], pa.int64()),
                "value": pa.array(known, pa.int64()),
            }
        ),
        exact=True,
    )
    last = users.last_interactions(log, [u for u, _ in pairs], [t for _, t in pairs])
    out = []
    for (user, at), row, stamp, recent in zip(
        pairs, joined["value"].to_pylist(), joined["value_timestamp_us"].to_pylist(), last, strict=True
    ):
        batch = {}
        if row is not None:
            known_then = {**features[row], "user_embedding_128d": _embedding(user, stamp)}
            batch = {name: Stamped(value, stamp) for name, value in known_then.items()}
        out.append(UserState(user, batch, recent, None, at))
    return out


def _embedding(user: str, moment_us: int) -> NDArray[np.float32]:
    """What a model might have said then; the log holds no embeddings."""
    random = np.random.default_rng([zlib.crc32(user.encode()), moment_us])
    return random.standard_normal(EMBEDDING_DIM, np.float32)


def _compare_items(log: Log, store: OnlineStore, count: int, random: np.random.Generator, result: Parity) -> None:
    ids = log.item_ids()
    if not ids:
        raise DataError(f"{log.folder} has no items")
    first, last = log.span_us()
    moments = sorted(random.integers(first, last + DAY_US, count).tolist())
    events = items.read_events(log, ids, moments[-1])
    chosen = [sorted(random.choice(len(ids), min(ITEMS_A_MOMENT, len(ids)), replace=False).tolist()) for _ in moments]
    trending = _trending(log, ids, moments, chosen)
    for number, (moment, offline) in enumerate(items.walk(events, moments)):
        store.write_item_snapshot(item_snapshot(log, moment, item_ids=ids))
        snapshot = store.read_item_snapshot()
        if snapshot is None:
            raise DataError(f"{type(store).__name__} lost the item snapshot that was just written")
        online = resolve_items(snapshot.columns, snapshot.timestamps_us, len(ids), moment).columns
        for row in chosen[number]:
            result.item_moments += 1
            for name, column in offline.items():
                _compare(result, "item", ids[row], moment, name, float(online[name][row]), float(column[row]))
            served = trending[number][row]
            true = float(offline["item_trending_score"][row])
            _compare(result, "item", ids[row], moment, "item_trending_score", served, true)


def _trending(
    log: Log, ids: Sequence[str], moments: Sequence[int], chosen: Sequence[Sequence[int]]
) -> list[dict[int, float]]:
    """The streaming path: every event of the chosen items, one by one."""
    rows = sorted({row for some in chosen for row in some})
    row_of = {ids[row]: row for row in rows}
    log.db.register("tracked", pa.table({"item_id": pa.array(row_of, pa.string())}))
    events = log.db.execute(
        "SELECT item_id, event, value, at_us FROM log SEMI JOIN tracked USING (item_id) ORDER BY at_us, item_id, event"
    ).fetchall()
    half_life = items.HALF_LIVES_US["item_trending_score"]
    scores: dict[int, Decayed] = {}
    out, streamed = [], 0
    for moment, some in zip(moments, chosen, strict=True):
        while streamed < len(events) and events[streamed][3] < moment:
            item_id, event, value, at = events[streamed]
            weight = positive_weight(log.config, event, value)
            if weight:
                score = scores.get(row_of[item_id], Decayed())
                scores[row_of[item_id]] = score.add(weight, at, half_life)
            streamed += 1
        out.append({row: scores.get(row, Decayed()).at(moment, half_life) for row in some})
    return out


def _compare(result: Parity, entity: str, id_: str, at: int, name: str, online: Any, offline: Any) -> None:
    result.values[name] += 1
    if not same(online, offline):
        result.mismatches.append(Mismatch(entity, id_, at, name, online, offline))
