"""What the same time of the past was like, and what a shift is when it was like that then too.

    drifted from training   drifted from the same season   verdict
    no                      any                            none (that a season did not come is told)
    yes                     no                             seasonal
    yes                     yes                            drift
    yes                     not known                      drift, and why the season is not known
    not known               any                            inconclusive

"Drifted" is what the detector says, with its test, its floor and the correction for many columns; the season's rows are
judged as training's are. A season is only believed when it could have spoken: with fewer users than `LEAST_USERS` in
the past windows together it is not known.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from monitoring.drift.base import Result

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
LEAST_USERS = 200

Verdict = Literal["drift", "seasonal", "none", "inconclusive"]
SeasonName = Literal["hour", "weekday", "year"]


@dataclass(frozen=True, slots=True)
class Season:
    """every_us: how far apart the same times are; times: how many of them are looked at, newest first."""

    every_us: int
    times: int
    words: str


SEASONS: dict[SeasonName, Season] = {
    "hour": Season(DAY_US, 7, "the same hours of the 7 days before"),
    "weekday": Season(7 * DAY_US, 4, "the same days of the 4 weeks before"),
    # 52 weeks keep the day of the week.
    "year": Season(364 * DAY_US, 2, "the same weeks of the 2 years before"),
}


def past_windows(since_us: int, until_us: int, season: Season) -> Iterator[tuple[int, int]]:
    """[since, until) of the same times before. None of them overlaps the window: it is at most as long as the period.

    Raises:
        ValueError: the window is longer than the season's period.
    """
    if until_us - since_us > season.every_us:
        raise ValueError(f"a window of {(until_us - since_us) / DAY_US:g} days overlaps {season.words}")
    for back in range(1, season.times + 1):
        yield since_us - back * season.every_us, until_us - back * season.every_us


def unlogged(season: Season, kept_days: float) -> str:
    """Why a season of which no log is left is not known."""
    why = f"the season is not known: nothing was logged in {season.words}"
    if kept_days * DAY_US >= season.every_us:
        return why
    return f"{why}, and contexts are kept for {kept_days:g} days (setting keep_contexts_d)"


def in_season(flat: Result, season: Result | None, unknown: str = "") -> tuple[Verdict, str]:
    """The verdict on one column, and why. season: None where nothing of the past can be told (`unknown` says why)."""
    if flat.drift != "drift":
        unusual = flat.drift == "none" and season is not None and season.drift == "drift"
        return flat.drift, "as in training, but not as in the same season of the past" if unusual else flat.why
    if season is None:
        return "drift", unknown
    if season.drift == "inconclusive":
        return "drift", f"the season is not known: {season.why}"
    if season.drift == "drift":
        return "drift", "not as in training, nor as in the same season of the past"
    return "seasonal", "not as in training, but as in the same season of the past"
