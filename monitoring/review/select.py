"""Answers for a person: uncertain and dear at once, as the schema declares. Pure.

margin: score of the slate's last item less that of the best one that was left out (of the first 50 after ranking).
Rules may put an item first whatever its score, so a margin can be below 0: that is a wish, not doubt, and no case.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from monitoring.watch.schema import Review

DAY_US = 86_400_000_000
Case = dict[str, Any]  # id, at_us, margin, value, item_id, left_out, state (open, done), note


def margin(
    slate: Sequence[str], scores: Sequence[float], top: Sequence[str], top_scores: Sequence[float]
) -> float | None:
    """None where nothing was left out, or nothing was ranked."""
    shown = set(slate)
    others = [score for item, score in zip(top, top_scores, strict=False) if item not in shown]
    if not others or not scores:
        return None
    return min(scores) - max(others)


def cases(rows: Iterable[Mapping[str, Any]], values: Mapping[str, float], rules: Review) -> list[Case]:
    """rows: of context records. values: item → what is at stake. The least certain first; no user's name is kept."""
    found: list[Case] = []
    for row in rows:
        slate, scores = row["item_ids"] or (), row["scores"] or ()
        gap = margin(slate, scores, row["top_item_ids"] or (), row["top_scores"] or ())
        if gap is None or not 0 <= gap < rules.margin:
            continue
        dear = [(values[item], item) for item in slate if values.get(item, 0.0) > rules.value_over]
        if dear:
            value, item = max(dear)
            found.append(
                {
                    "id": row["request_id"],
                    "at_us": row["timestamp_us"],
                    "margin": round(gap, 6),
                    "value": round(value, 2),
                    "item_id": item,
                    "state": "open",
                    "note": "",
                }
            )
    return sorted(found, key=lambda case: (case["margin"], case["id"]))


def queued(queue: Mapping[str, Any], new: Sequence[Case], rules: Review, until_us: int) -> dict[str, Any]:
    """The queue with the new cases, within its bounds; what did not fit is counted. until_us: what was looked at."""
    kept = [c for c in queue.get("cases", ()) if until_us - c["at_us"] < rules.keep_days * DAY_US]
    known = {c["id"] for c in kept}
    of_day: dict[int, int] = {}
    for case in kept:
        of_day[case["at_us"] // DAY_US] = of_day.get(case["at_us"] // DAY_US, 0) + 1
    open_ = sum(c["state"] == "open" for c in kept)
    dropped = int(queue.get("dropped", 0))
    for case in new:
        day = case["at_us"] // DAY_US
        if case["id"] in known:
            continue
        if open_ >= rules.most_open or of_day.get(day, 0) >= rules.most_a_day:
            dropped += 1
            continue
        kept.append(case)
        known.add(case["id"])
        open_, of_day[day] = open_ + 1, of_day.get(day, 0) + 1
    return {"cases": kept, "dropped": dropped, "until_us": until_us}
