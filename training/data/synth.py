"""The log of a synthetic world: sessions, slates with position bias, clicks, purchases and completions.

Drawn in blocks of sessions in the order of time, so memory does not grow with the number of events.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from contracts.dataset import INTERACTIONS, ITEMS, USERS
from contracts.errors import UsageError
from training.data.folder import publish, write_config
from training.data.read import TIMESTAMP
from training.data.world import AGE_BANDS, COUNTRIES, DAY_US, DEVICES, END_US, World

__all__ = ["World", "write"]

Rows = NDArray[np.integer[Any]]

SLATE = 10  # places a slate has
MOST_DAYS = 36_500  # a hundred years; far more lies before the first time that a data set may hold
MAX_PAGES = 3  # slates a session has at most
BLOCK_SESSIONS = 10_000
TRIAL_SESSIONS = 4_000
EVENTS_PER_USER = 125  # impressions included; used when no number of events is asked for
SECOND_US = 1_000_000
FOCUS_BOOST = 0.7  # log-odds of items in the category that a session is about
EVENTS = ("impression", "click", "purchase", "completion")
IMPRESSION, CLICK, PURCHASE, COMPLETION = range(4)

SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("timestamp", TIMESTAMP),
        ("event", pa.string()),
        ("value", pa.float64()),
        ("device", pa.string()),
        ("position", pa.int32()),
    ]
)

CONFIG = """\
name = "synth-{seed}"
licence = "CC0-1.0"
clock = "log_end"
impression_event = "impression"
completion_event = "completion"
slices = ["country", "device", "age_band"]
max_reject_share = 0.01
session_gap_min = 30.0

[[positives]]
event = "click"

[[positives]]
event = "purchase"
weight = 2.0

[[features]]
column = "country"
table = "users"
kind = "categorical"

[[features]]
column = "age_band"
table = "users"
kind = "categorical"

[[features]]
column = "device"
table = "interactions"
kind = "categorical"

[[features]]
column = "category"
table = "items"
kind = "categorical"

[[features]]
column = "creator_id"
table = "items"
kind = "categorical"

[[features]]
column = "price"
table = "items"
kind = "numeric"

[[features]]
column = "title"
table = "items"
kind = "text"
"""


def write(
    out: Path,
    *,
    users: int = 2_000,
    items: int = 1_500,
    days: int = 30,
    seed: int = 0,
    events: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write a data set and its truth (`truth/world.npz`); returns the number of events.

    events: about so many in all, impressions included (None: 125 a user). progress: called with (done, expected).

    Raises:
        UsageError: a size that makes no world, or `out` is in use.
    """
    for name, value, least in (("users", users, 1), ("items", items, 2 * SLATE), ("days", days, 1), ("seed", seed, 0)):
        if value < least:
            raise UsageError(f"--{name} is {value}; it must be at least {least}")
    if days > MOST_DAYS:
        raise UsageError(f"--days is {days}; it must be at most {MOST_DAYS}")
    if events is not None and events < 1:
        raise UsageError(f"--events is {events}; it must be at least 1")
    wanted = users * EVENTS_PER_USER if events is None else events
    world = World.from_seed(seed, users=users, items=items, days=days)
    origin = {"made_by": "synth", "users": users, "items": items, "days": days, "seed": seed, "events": wanted}
    with publish(out, origin) as folder:
        write_config(folder, CONFIG.format(seed=seed))
        pq.write_table(_items(world), folder / ITEMS)
        pq.write_table(_users(world), folder / USERS)
        world.save(folder / "truth")
        return _write_log(folder / INTERACTIONS, world, wanted, progress)


def _items(world: World) -> pa.Table:
    return pa.table(
        {
            "item_id": world.item_ids(),
            "category": _names("c", world.item_category),
            "published_at": pa.array(world.launch_us, pa.int64()).cast(TIMESTAMP),
            "creator_id": _names("maker", world.item_creator),
            "is_promoted": world.is_promoted,
            "is_flagged": world.is_flagged,
            "title": _titles(world),
            "price": world.item_price.astype(np.float64),
        }
    )


def _users(world: World) -> pa.Table:
    return pa.table(
        {
            "user_id": world.user_ids(),
            "country": _pick(COUNTRIES, world.user_country),
            "age_band": _pick(AGE_BANDS, world.user_age),
        }
    )


def _titles(world: World) -> list[str]:
    """Words that tell the two strongest latent factors and the category: text carries taste, also of new items."""
    order = np.argsort(-np.abs(world.item_latent), axis=1)[:, :2]
    words = ("plain", "bright", "small", "grand", "soft", "bold", "old", "new")
    signs = np.take_along_axis(world.item_latent, order, axis=1) > 0
    return [
        f"{words[a]}{'er' if p else ''} {words[b]}{'ish' if q else ''} thing of kind {c}"
        for (a, b), (p, q), c in zip(order.tolist(), signs.tolist(), world.item_category.tolist(), strict=True)
    ]


def _names(prefix: str, codes: NDArray[np.int32]) -> pa.Array:
    names = [f"{prefix}{code}" for code in range(int(codes.max()) + 1)]
    return _pick(names, codes)


def _pick(names: tuple[str, ...] | list[str] | pa.Array, codes: Rows) -> pa.Array:
    dictionary = names if isinstance(names, pa.Array) else pa.array(names, pa.string())
    return dictionary.take(pa.array(codes))


class _Shelf:
    """What may be shown when: items in the order of launch, overall and within each category."""

    def __init__(self, world: World) -> None:
        self._order = np.argsort(world.launch_us, kind="stable")
        self._launch = world.launch_us[self._order]
        self._weight = np.concatenate([[0.0], np.cumsum(world.popularity[self._order], dtype=np.float64)])
        by_category = np.lexsort((world.launch_us, world.item_category))
        self._category_order = by_category
        # One sorted key for (category, launch): categories lie further apart than any two launches.
        self._apart = np.int64(1) << 52
        base = int(world.launch_us.min())
        self._base = base
        self._category_key = (
            world.item_category[by_category].astype(np.int64) * self._apart + world.launch_us[by_category] - base
        )
        self._category_start = np.searchsorted(world.item_category[by_category], np.arange(world.categories))
        self._category_weight = np.concatenate([[0.0], np.cumsum(world.popularity[by_category], dtype=np.float64)])

    def popular(self, at_us: NDArray[np.int64], draw: NDArray[np.float64]) -> NDArray[np.int64]:
        """One item a row, launched before `at_us`, by popularity. `draw`: uniform in [0, 1)."""
        known = np.searchsorted(self._launch, at_us, side="right")
        place = np.searchsorted(self._weight, draw * self._weight[known], side="right") - 1
        item: NDArray[np.int64] = self._order[np.minimum(place, known - 1)]
        return item

    def uniform(self, at_us: NDArray[np.int64], draw: NDArray[np.float64]) -> NDArray[np.int64]:
        known = np.searchsorted(self._launch, at_us, side="right")
        return self._order[(draw * known).astype(np.int64)]

    def of_category(self, category: Rows, at_us: NDArray[np.int64], draw: NDArray[np.float64]) -> NDArray[np.int64]:
        """As `popular`, within a category; an item of any category where that one has none yet."""
        start = self._category_start[category]
        key = category.astype(np.int64) * self._apart + at_us - self._base
        end = np.searchsorted(self._category_key, key, side="right")
        low, high = self._category_weight[start], self._category_weight[end]
        place = np.searchsorted(self._category_weight, low + draw * (high - low), side="right") - 1
        chosen = self._category_order[np.clip(place, start, np.maximum(end - 1, start))]
        return np.where(end > start, chosen, self.popular(at_us, draw))


def _write_log(path: Path, world: World, wanted: int, progress: Callable[[int, int], None] | None) -> int:
    rng = np.random.default_rng([world.seed, 1])
    shelf = _Shelf(world)
    user_ids, item_ids = pa.array(world.user_ids(), pa.string()), pa.array(world.item_ids(), pa.string())
    taste = _cumulative_taste(world)
    # How many events a session makes is a property of the world: measured on a trial with its own generator.
    trial = _session_block(world, shelf, taste, np.random.default_rng([world.seed, 2]), TRIAL_SESSIONS, (0.0, 1.0))
    per_session = len(trial["user"]) / TRIAL_SESSIONS
    sessions = max(1, round(wanted / per_session))
    blocks = -(-sessions // BLOCK_SESSIONS)
    written = 0
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for block in range(blocks):
            count = sessions * (block + 1) // blocks - sessions * block // blocks
            span = (block / blocks, (block + 1) / blocks)
            log = _session_block(world, shelf, taste, rng, count, span)
            table = pa.table(
                [
                    user_ids.take(pa.array(log["user"])),
                    item_ids.take(pa.array(log["item"])),
                    pa.array(log["at_us"]).cast(TIMESTAMP),
                    _pick(EVENTS, log["event"]),
                    pa.array(log["value"], from_pandas=True),
                    _pick(DEVICES, log["device"]),
                    pa.array(log["position"], mask=log["position"] == 0),
                ],
                schema=SCHEMA,
            )
            writer.write_table(table, row_group_size=1 << 17)
            written += len(table)
            if progress:
                progress(written, wanted)
    return written


def _cumulative_taste(world: World) -> NDArray[np.float32]:
    """[U, C]: cumulative probability that a session of this user is about each category."""
    logits = world.user_category + world.country_category[world.user_country]
    weight = np.exp(logits - logits.max(axis=1, keepdims=True))
    cumulative = np.cumsum(weight, axis=1)
    share: NDArray[np.float32] = (cumulative / cumulative[:, -1:]).astype(np.float32)
    return share


def _session_block(
    world: World,
    shelf: _Shelf,
    taste: NDArray[np.float32],
    rng: np.random.Generator,
    sessions: int,
    span: tuple[float, float],
) -> dict[str, NDArray[Any]]:
    """Sessions that start within a span of the log's time ([0, 1) is all of it); events sorted by time."""
    user = np.searchsorted(np.cumsum(world.activity, dtype=np.float64), rng.random(sessions) * 0.999999)
    user = np.minimum(user, world.users - 1)
    start_us = _starts(world, rng, sessions, span)
    focus = _category_of(taste, user, rng.random(sessions))
    device = np.where(rng.random(sessions) < 0.8, world.user_device[user], rng.integers(0, len(DEVICES), sessions))

    # One row a shown item: [sessions, pages, places] flattened, pages beyond a session's length dropped.
    pages = 1 + rng.binomial(MAX_PAGES - 1, 0.4, sessions)
    session, page, place = (
        axis.ravel() for axis in np.meshgrid(np.arange(sessions), np.arange(MAX_PAGES), np.arange(SLATE), indexing="ij")
    )
    keep = page < pages[session]
    session, page, place = session[keep], page[keep], place[keep]
    at_us = np.minimum(start_us[session] + page * 90 * SECOND_US, END_US - SECOND_US)
    item = _shown(shelf, taste, rng, user[session], focus[session], at_us)
    first = _first_of_slate(session * MAX_PAGES + page, item)
    session, page, place, item, at_us = session[first], page[first], place[first], item[first], at_us[first]
    rows = len(session)
    who = user[session]
    position = (place + 1).astype(np.int32)

    boost = np.where(world.item_category[item] == focus[session], FOCUS_BOOST, 0.0).astype(np.float32)
    likes = world.affinity(who, item, boost=boost)
    clicked = rng.random(rows) < likes * world.examination(position)
    click_us = at_us + ((1.5 * position + rng.random(rows) * 3) * SECOND_US).astype(np.int64)
    bought = clicked & (rng.random(rows) < 0.05 + 0.3 * likes)
    completion = np.clip(rng.beta(1 + 4 * likes, 1 + 2 * (1 - likes)), 0, 1)

    none = np.full(rows, np.nan)
    zero = np.zeros(rows, dtype=np.int32)
    parts = [
        (np.ones(rows, dtype=bool), at_us, IMPRESSION, none, position),
        (clicked, click_us, CLICK, none, position),
        (bought, click_us + rng.integers(20, 240, rows) * SECOND_US, PURCHASE, none, zero),
        (clicked, click_us + rng.integers(5, 60, rows) * SECOND_US, COMPLETION, completion.round(4), zero),
    ]
    log = {
        "user": np.concatenate([who[m] for m, *_ in parts]),
        "item": np.concatenate([item[m] for m, *_ in parts]),
        "at_us": np.concatenate([t[m] for m, t, *_ in parts]),
        "event": np.concatenate([np.full(int(m.sum()), e, dtype=np.int32) for m, _, e, *_ in parts]),
        "value": np.concatenate([v[m] for m, _, _, v, _ in parts]),
        "device": np.concatenate([device[session][m] for m, *_ in parts]),
        "position": np.concatenate([p[m] for m, _, _, _, p in parts]),
    }
    inside = log["at_us"] < END_US  # the log ends; what would come after it did not happen yet
    order = np.argsort(log["at_us"][inside], kind="stable")
    return {name: column[inside][order] for name, column in log.items()}


def _starts(world: World, rng: np.random.Generator, sessions: int, span: tuple[float, float]) -> NDArray[np.int64]:
    """Session starts, uniform over days, with an evening peak within a day."""
    length = world.days * DAY_US
    moment = (span[0] + rng.random(sessions) * (span[1] - span[0])) * length
    # Warp the time of day: more in the evening, monotone so that blocks keep their order up to a day's edge.
    day, inside = np.divmod(moment / DAY_US, 1.0)
    warped = inside - 0.11 * np.sin(2 * np.pi * (inside - 0.3)) - 0.11 * np.sin(2 * np.pi * 0.3)
    at_us: NDArray[np.int64] = world.start_us + ((day + np.clip(warped, 0, 0.999999)) * DAY_US).astype(np.int64)
    return at_us


def _category_of(taste: NDArray[np.float32], user: Rows, draw: NDArray[np.float64]) -> NDArray[np.int64]:
    """One category a row from its user's taste."""
    category: NDArray[np.int64] = np.minimum((taste[user] < draw[:, None]).sum(axis=1), taste.shape[1] - 1)
    return category


def _shown(
    shelf: _Shelf,
    taste: NDArray[np.float32],
    rng: np.random.Generator,
    user: Rows,
    focus: Rows,
    at_us: NDArray[np.int64],
) -> NDArray[np.int64]:
    """What the old policy showed: 40 % the focus of the session, 20 % the taste, 20 % popular, 20 % anything."""
    rows = len(user)
    why, draw = rng.random(rows), rng.random(rows)
    category = np.where(why < 0.4, focus, _category_of(taste, user, rng.random(rows)))
    item = shelf.of_category(category, at_us, draw)
    item = np.where((why >= 0.6) & (why < 0.8), shelf.popular(at_us, draw), item)
    return np.where(why >= 0.8, shelf.uniform(at_us, draw), item)


def _first_of_slate(slate: NDArray[np.int64], item: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True where an item stands in a slate for the first time."""
    order = np.lexsort((np.arange(len(slate)), item, slate))
    again = np.zeros(len(slate), dtype=bool)
    same = (slate[order][1:] == slate[order][:-1]) & (item[order][1:] == item[order][:-1])
    again[order[1:][same]] = True
    return ~again
