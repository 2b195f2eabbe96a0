"""What was done with each item lately, folded event by event: hourly counts for rates, a decayed sum for what trends.

Counted by item, event and grade, not by what the events mean: which are positive, and what they weigh, is said by a
data set's configuration when the counts are read (features/live_items.py), so that no consumer has to know it and two
Bentos may disagree. A grade is a value in half steps from 0 to 10, which is how ratings come: a rule like "at least 4"
reads it.

Counts are whole numbers and shares are in units of 1e-9, so that any order of adding gives the same result. R rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contracts.events import IMPRESSION, Event
from features.decayed import Decayed
from features.registry import TRENDING_HALF_LIFE_H

HOUR_US = 3_600_000_000
TRENDING_HALF_LIFE_US = TRENDING_HALF_LIFE_H * HOUR_US
DAY_H = 24
WEEK_H = 7 * DAY_H
# Hourly counts live as long as a window of theirs, and a day for whoever reads late.
KEEP_HOURS = WEEK_H + 24
# An accumulator without an event for so long has decayed by 2^-28, which no float32 shows.
KEEP_DECAYED_US = 14 * 24 * HOUR_US
NO_GRADE = -1
TOP_GRADE = 20
_NANO = 1_000_000_000


class Key(NamedTuple):
    item_id: str
    event: str
    grade: int


class Count(NamedTuple):
    """n: events; valued: those with a value; share_nano: Σ of the values cut to [0, 1], in units of 1e-9."""

    n: int
    valued: int
    share_nano: int

    def plus(self, other: "Count") -> "Count":
        return Count(self.n + other.n, self.valued + other.valued, self.share_nano + other.share_nano)


@dataclass(frozen=True, slots=True)
class Counted:
    """What a batch of events adds. hours: (hour since 1970, key) → count; decays: key → moments of its events."""

    hours: dict[tuple[int, Key], Count]
    decays: dict[Key, list[int]]


@dataclass(frozen=True, slots=True)
class ItemCounts:
    """One row for each item, event and grade of late, as of `now_us`. All [R].

    item_ids, events: strings, in no order; grade: int16, -1 without a value; decayed: float64, Σ 2^(-age / 12 h);
    n, valued: int64, events of the last 7 days; share: float64, Σ of their values cut to [0, 1].

    since_us: the first hour of the 7 days in which anything happened; `now_us` where nothing did.

    The 7 days are the current hour and the 168 whole hours before it. `now_us` is on the clock of the events: that of
    the wall, also where the data set's own log ended years ago.
    """

    now_us: int
    item_ids: Sequence[str]
    events: Sequence[str]
    grade: NDArray[np.int16]
    decayed: NDArray[np.float64]
    n: NDArray[np.int64]
    valued: NDArray[np.int64]
    share: NDArray[np.float64]
    since_us: int = 0

    def __len__(self) -> int:
        return len(self.item_ids)


def grade_of(value: float | None) -> int:
    """Half steps: 4.5 → 9, everything from 10 on → 20; -1 where there is no value or a negative one."""
    return NO_GRADE if value is None or value < 0 else int(min(value * 2, TOP_GRADE))


def count_events(events: Iterable[Event]) -> Counted:
    """Events that came too late for any window (by their own `received_us`, so that a replay says the same) are left
    out of it. So are impressions of an answer: its exposure has counted them (`shown`)."""
    hours: dict[tuple[int, Key], Count] = {}
    decays: dict[Key, list[int]] = {}
    for e in events:
        if e.event == IMPRESSION and e.request_id is not None:
            continue
        key = Key(e.item_id, e.event, grade_of(e.value))
        age_us = e.received_us - e.timestamp_us
        if age_us <= KEEP_DECAYED_US:
            decays.setdefault(key, []).append(e.timestamp_us)
        if age_us <= KEEP_HOURS * HOUR_US:
            share = 0 if e.value is None else round(min(max(e.value, 0.0), 1.0) * _NANO)
            one = Count(1, int(e.value is not None), share)
            at = (e.timestamp_us // HOUR_US, key)
            hours[at] = one if at not in hours else hours[at].plus(one)
    return Counted(hours, decays)


def shown(hours: Mapping[tuple[int, str], int]) -> dict[tuple[int, Key], Count]:
    """Counts of exposures by (hour, item) as those of impressions: a rate's denominator, and no sign of what trends."""
    return {(hour, Key(item_id, IMPRESSION, NO_GRADE)): Count(n, 0, 0) for (hour, item_id), n in hours.items()}


def decay(state: Decayed, moments_us: Iterable[int]) -> Decayed:
    """One event at each moment, added to the accumulator of `item_trending_score`."""
    for at in moments_us:
        state = state.add(1.0, at, TRENDING_HALF_LIFE_US)
    return state


def window(now_us: int) -> tuple[int, int]:
    """First and last hour of the 7 days before `now_us`, both counted; `now_us` itself belongs to the next moment."""
    last = (now_us - 1) // HOUR_US
    return now_us // HOUR_US - WEEK_H, last


def parts(first: int, last: int) -> tuple[range, tuple[range, range]]:
    """The same hours as whole days (since 1970, UTC) and the hours before and after them: a week is read by the day."""
    days = range(-(-first // DAY_H), (last + 1) // DAY_H)
    if not days:
        return days, (range(first, last + 1), range(0))
    return days, (range(first, days.start * DAY_H), range(days.stop * DAY_H, last + 1))


def by_day(hours: Mapping[tuple[int, Key], Count]) -> dict[tuple[int, Key], Count]:
    """(day, key) → count."""
    days: dict[tuple[int, Key], Count] = {}
    for (hour, key), count in hours.items():
        at = (hour // DAY_H, key)
        days[at] = count.plus(days[at]) if at in days else count
    return days


def item_counts(
    now_us: int, decayed: dict[Key, Decayed], week: dict[Key, Count], first_hour: int | None = None
) -> ItemCounts:
    """Columns from what a store holds. A key without an accumulator has decayed away. first_hour: of the week's."""
    keys = list({**decayed, **week})
    none, nothing = Decayed(0.0, now_us), Count(0, 0, 0)
    counts = [week.get(k, nothing) for k in keys]
    return ItemCounts(
        now_us,
        [k.item_id for k in keys],
        [k.event for k in keys],
        np.array([k.grade for k in keys], np.int16),
        np.array([decayed.get(k, none).at(now_us, TRENDING_HALF_LIFE_US) for k in keys], np.float64),
        np.array([c.n for c in counts], np.int64),
        np.array([c.valued for c in counts], np.int64),
        np.array([c.share_nano for c in counts], np.int64) / _NANO,
        now_us if first_hour is None else first_hour * HOUR_US,
    )
