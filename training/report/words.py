"""Figures as the report tells them."""

from datetime import UTC, datetime

import numpy as np

from training.evaluation.metrics import Estimate


def estimate(value: Estimate | None, digits: int = 4, sign: bool = False) -> str:
    """`0.0781 ± 0.0066`, one standard error; – unknown."""
    if value is None or not np.isfinite(value.value):
        return "–"
    number = f"{value.value:{'+' if sign else ''}.{digits}f}"
    return f"{number} ± {value.se:.{digits}f}" if np.isfinite(value.se) else number


def interval(value: float, low: float, high: float) -> str:
    return f"{value:.4f} [{low:.4f}, {high:.4f}]" if np.isfinite(value) else "–"


def number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:,.{digits}f}"


def moment(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat(sep=" ", timespec="minutes").replace("+00:00", " UTC")
