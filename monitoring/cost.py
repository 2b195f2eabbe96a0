"""What monitoring costs, and serving beside it: measured CPU seconds and bytes at given prices. Pure.

Three levels. basic: service levels and ages. standard: and drift, skew and slices, on what is logged anyway. full: and
every answer's context in full, so that each can be replayed and judged row by row.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

LEVELS: Mapping[str, frozenset[str]] = {
    "basic": frozenset({"levels", "freshness"}),
    "standard": frozenset({"levels", "freshness", "drift", "skew", "quality"}),
    "full": frozenset({"levels", "freshness", "drift", "skew", "quality"}),
}
MONTH_S = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class Prices:
    """cpu_hour: of one core. gb_month: of storage."""

    cpu_hour: float
    gb_month: float
    currency: str = "EUR"


@dataclass(frozen=True, slots=True)
class Measured:
    """checks: name → (CPU seconds of one look on average, looks so far, minutes between looks). context_bytes: of one
    record on the disk; context_cpu_s: of making one; kept_days: of contexts. Unknown figures are None."""

    checks: Mapping[str, tuple[float, int, float]]
    requests_a_day: float | None
    exposure_bytes: float | None
    context_bytes: float | None
    context_share: float
    context_cpu_s: float | None
    serving_cpu_s: float | None  # of one request, all serving processes together
    kept_days: float


def cost(measured: Measured, prices: Prices) -> dict[str, Any]:
    """A month of each level and of serving. A figure that was not measured is None, and named in `unknown`."""
    unknown = [name for name in ("requests_a_day", "context_bytes", "serving_cpu_s") if getattr(measured, name) is None]
    looked = {name for name, (_, looks, _) in measured.checks.items() if looks}
    levels = {}
    for level, names in LEVELS.items():
        cpu_s = sum(
            each * MONTH_S / 60 / minutes for name, (each, _, minutes) in measured.checks.items() if name in names
        )
        share = {"basic": 0.0, "standard": measured.context_share, "full": 1.0}[level]
        requests = measured.requests_a_day or 0.0
        cpu_s += requests * 30 * share * (measured.context_cpu_s or 0.0)
        stored = (
            requests * measured.kept_days * ((measured.exposure_bytes or 0.0) + share * (measured.context_bytes or 0.0))
        )
        levels[level] = _priced(cpu_s, stored, prices)
        missing = sorted(names - looked)
        levels[level]["not_looked_yet"] = missing
    served_s = (measured.serving_cpu_s or 0.0) * (measured.requests_a_day or 0.0) * 30
    serving = _priced(served_s, 0.0, prices) if "serving_cpu_s" not in unknown else None
    return {
        "prices": asdict(prices),
        "measured": asdict(measured),
        "levels": levels,
        "serving": serving,
        "unknown": unknown,
    }


def _priced(cpu_s: float, stored_bytes: float, prices: Prices) -> dict[str, Any]:
    return {
        "cpu_hours": round(cpu_s / 3600, 4),
        "stored_gb": round(stored_bytes / 1e9, 6),
        "month": round(cpu_s / 3600 * prices.cpu_hour + stored_bytes / 1e9 * prices.gb_month, 4),
    }
