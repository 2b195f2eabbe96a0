"""Service levels as signals: from the counts of each minute, and from the moment of the streaming features. Pure."""

from collections.abc import Sequence
from typing import Any

from monitoring.levels.burn import MINUTE_US, Burn, burns
from monitoring.levels.minutes import ANSWERED, IN_TIME, MINUTE, REQUESTS, TIMED, Counts
from monitoring.signals import Signal
from monitoring.watch.schema import Levels


def level_signals(rows: Counts, levels: Levels, now_us: int) -> list[Signal]:
    """`level.availability` and `level.latency`, of the service as a whole."""
    minute = now_us // MINUTE_US
    when = rows[:, MINUTE]
    return [
        _level(
            "level.availability",
            burns(when, rows[:, ANSWERED], rows[:, REQUESTS], levels.availability, minute),
            f"{levels.availability:.2%} of the requests are answered",
            levels.least_requests,
            now_us,
        ),
        _level(
            "level.latency",
            burns(when, rows[:, IN_TIME], rows[:, TIMED], levels.latency_share, minute),
            f"{levels.latency_share:.0%} of the answers within {levels.latency_ms:g} ms",
            levels.least_requests,
            now_us,
        ),
    ]


def streaming_signal(counted_us: int | None, levels: Levels, now_us: int) -> Signal:
    """counted_us: the moment up to which the streaming features know what was done; None: nothing was counted yet."""
    name, limit = "level.streaming_features", levels.streaming_features_s
    if counted_us is None:
        return Signal(name, "", "inconclusive", now_us, threshold=limit, cause="no streaming features were made yet")
    age_s = max(0.0, (now_us - counted_us) / 1e6)
    if age_s <= limit:
        return Signal(name, "", "ok", now_us, age_s, limit, cause=f"{age_s:.0f} s old")
    cause = f"the streaming features are {age_s:.0f} s old, {limit:g} s are allowed"
    return Signal(name, "", "breach", now_us, age_s, limit, counted_us + int(limit * 1e6), cause)


def _level(name: str, found: Sequence[Burn], promise: str, least: int, now_us: int) -> Signal:
    """The worst pair of windows: a page before a ticket. value: its long burn rate; threshold: its factor."""
    details: dict[str, Any] = {
        "windows": [
            {
                "severity": burn.pair.severity,
                "factor": burn.pair.factor,
                "long_minutes": burn.pair.long_minutes,
                "short_minutes": burn.pair.short_minutes,
                "long": burn.long,
                "short": burn.short,
                "n": burn.n,
            }
            for burn in found
        ]
    }
    told = [burn for burn in found if burn.n >= least]
    if not told:
        n = max((burn.n for burn in found), default=0)
        cause = f"{n} requests in three days, {least} are needed to say whether {promise}"
        return Signal(name, "", "inconclusive", now_us, cause=cause, details=details)
    worst = next((burn for burn in told if burn.breached), None)
    if worst is None:
        hottest = max(told, key=lambda burn: (burn.long or 0.0) / burn.pair.factor)
        return Signal(name, "", "ok", now_us, hottest.long, hottest.pair.factor, cause=promise, details=details)
    pair = worst.pair
    details["severity"] = pair.severity
    cause = (
        f"{promise}: the budget burns {worst.long:.1f} times too fast over {_span(pair.long_minutes)} and "
        f"{worst.short:.1f} times over {_span(pair.short_minutes)}"
    )
    return Signal(
        name, "", "breach", now_us, worst.long, pair.factor, now_us - pair.long_minutes * MINUTE_US, cause, details
    )


def _span(minutes: int) -> str:
    if minutes % 1440 == 0:
        return f"{minutes // 1440} days"
    return f"{minutes // 60} h" if minutes % 60 == 0 else f"{minutes} min"
