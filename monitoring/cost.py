"""What monitoring costs, and serving beside it: measured CPU seconds and bytes at given prices. Pure.

Three levels. basic: service levels, ages, and that what is kept does not outlive its time. standard: and drift, skew,
slices and the review queue, on the contexts that are logged anyway. full: and every answer's context in full (with what
the ranker read, all candidates and all scores), so that each can be replayed stage by stage and judged row by row.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

BASIC = frozenset({"levels", "freshness", "kept"})
ALL = BASIC | {"drift", "online", "skew", "quality", "review"}
LEVELS: Mapping[str, frozenset[str]] = {"basic": BASIC, "standard": ALL, "full": ALL}
MONTH_S = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class Prices:
    """cpu_hour: of one core. gb_month: of storage."""

    cpu_hour: float
    gb_month: float
    currency: str = "EUR"


@dataclass(frozen=True, slots=True)
class Sample:
    """Of the answers, which share leaves a context; of the contexts, which share has rows and all candidates."""

    contexts: float
    rows: float
    candidates: float


FULL = Sample(1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Measured:
    """checks: name → (CPU seconds of one look on average, looks so far, minutes between looks). Bytes are those on the
    disk: of an exposure; of a context but for its rows and candidates; of its rows; of its candidates with all scores.
    sample: what this home logs. context_cpu_s: of making one record of that sample; full_context_cpu_s: of a full one.
    kept_days: of logs. Unknown figures are None."""

    checks: Mapping[str, tuple[float, int, float]]
    requests_a_day: float | None
    exposure_bytes: float | None
    context_bytes: float | None
    rows_bytes: float | None
    candidates_bytes: float | None
    sample: Sample
    context_cpu_s: float | None
    full_context_cpu_s: float | None
    serving_cpu_s: float | None  # of one request, all serving processes together
    kept_days: float


def cost(measured: Measured, prices: Prices) -> dict[str, Any]:
    """A month of each level and of serving. What was not measured is in no sum: each level names it in `unknown`, and
    is then a lower bound. Levels that do the same here say so (`same_as`)."""
    basic, standard = _level("basic", None, measured, prices), _level("standard", measured.sample, measured, prices)
    full = _level("full", FULL, measured, prices) | {"same_as": "standard" if measured.sample == FULL else None}
    levels = {"basic": basic, "standard": standard, "full": full}
    unserved = [name for name in ("requests_a_day", "serving_cpu_s") if getattr(measured, name) is None]
    served_s = (measured.serving_cpu_s or 0.0) * (measured.requests_a_day or 0.0) * 30
    return {
        "prices": asdict(prices),
        "measured": asdict(measured),
        "levels": levels,
        "serving": None if unserved else _priced(served_s, 0.0, prices),
        "unknown": sorted({*unserved, *(name for level in levels.values() for name in level["unknown"])}),
    }


def _level(level: str, sample: Sample | None, measured: Measured, prices: Prices) -> dict[str, Any]:
    names = LEVELS[level]
    looked = {name: check for name, check in measured.checks.items() if name in names and check[1]}
    cpu_s = sum(each * MONTH_S / 60 / minutes for each, _, minutes in looked.values())
    # Figure → how much of it each request costs.
    stored: dict[str, float] = {"exposure_bytes": 1.0}
    spent: dict[str, float] = {}
    if sample is not None:
        stored["context_bytes"] = sample.contexts
        stored["rows_bytes"] = sample.contexts * sample.rows
        stored["candidates_bytes"] = sample.contexts * sample.candidates
        spent["full_context_cpu_s" if sample == FULL else "context_cpu_s"] = sample.contexts
    needed = {name: share for name, share in (stored | spent).items() if share}
    unknown = [name for name in ("requests_a_day", *needed) if getattr(measured, name) is None]

    def of_a_request(parts: Mapping[str, float]) -> float:
        return sum(share * (getattr(measured, name) or 0.0) for name, share in parts.items())

    requests = measured.requests_a_day or 0.0
    cpu_s += requests * 30 * of_a_request(spent)
    priced = _priced(cpu_s, requests * measured.kept_days * of_a_request(stored), prices)
    return {**priced, "unknown": unknown, "not_looked_yet": sorted(names - looked.keys())}


def _priced(cpu_s: float, stored_bytes: float, prices: Prices) -> dict[str, Any]:
    return {
        "cpu_hours": round(cpu_s / 3600, 4),
        "stored_gb": round(stored_bytes / 1e9, 6),
        "month": round(cpu_s / 3600 * prices.cpu_hour + stored_bytes / 1e9 * prices.gb_month, 4),
    }
