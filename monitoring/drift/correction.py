"""Many tests of one window judged together: Benjamini & Hochberg's (1995) false-discovery rate at α.

Where nothing drifted, the chance of any false alarm is then at most α, however many features there are (for tests that
are independent or positively dependent).
"""

from collections.abc import Hashable, Mapping
from typing import TypeVar

from monitoring.drift.base import ALPHA, Result, Verdict
from monitoring.statistics.multiplicity import adjusted

Key = TypeVar("Key", bound=Hashable)


def correct(results: Mapping[Key, Result], alpha: float = ALPHA) -> dict[Key, Result]:
    """Each result with p_adjusted, and its verdict at it. Those without a p keep theirs."""
    p = adjusted({key: r.p for key, r in results.items() if r.p is not None})
    return {key: r.at(alpha, p[key]) if key in p else r for key, r in results.items()}


def overall(results: Mapping[Key, Result]) -> Verdict:
    """`drift` where one drifted; `none` only where none did, something was judged and no gap weighs."""
    found = {r.drift for r in results.values() if r.weighs}
    for verdict in ("drift", "inconclusive", "none"):
        if verdict in found:
            return verdict
    return "inconclusive"
