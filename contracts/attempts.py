"""One record for each call that a gateway makes to a variant, shadow calls included.

Exposures say who got what; attempts say how each variant behaved, also where a failover saved the answer. They are the
evidence for error and latency guardrails, and for the shadow gate.
"""

from typing import Literal

import msgspec

from contracts.serving import Degradation, Variant

ATTEMPT_SCHEMA = 1
# error: an HTTP error, a broken answer or a dead connection. late: no answer within its share of the deadline.
# open: not tried, the breaker was open (no failure of its own: it is not counted as an attempt, only as not served).
AttemptOutcome = Literal["ok", "error", "late", "open"]


class Compared(msgspec.Struct, frozen=True):
    """A shadow's answer beside the one that was served to the user."""

    overlap: float  # Jaccard index of the two slates' items
    common: int  # items in both
    correlation: float | None  # Spearman, of the scores of the common items; None below 3 of them
    ms_served: float  # of the attempt that was served
    # Kolmogorov-Smirnov distance of the two slates' scores, 0 to 1; None where one of them is empty.
    shift: float | None = None


class Attempt(msgspec.Struct, frozen=True):
    request_id: str  # of the exposure that it belongs to
    timestamp_us: int  # wall clock, when it began
    unit: str
    user_id: str
    variant: Variant
    shadow: bool
    bento: str
    release: str  # id of the release under way, "" without
    step: str
    outcome: AttemptOutcome
    status: int  # HTTP; 0 when there was no answer
    ms: float
    degradation: Degradation | None  # None unless ok
    n_items: int
    k: int  # asked for
    score_min: float | None
    score_max: float | None
    schema_ok: bool  # item ids unique, at most k, positions 1.., scores finite
    forced: bool = False  # a tester's pass: no evidence
    context: dict[str, str] = {}  # of the request: for slices
    panel: list[str] = []  # edge cases that this request is: `new_user`, `no_context`, `stale_features`, …
    compared: Compared | None = None
    schema: int = ATTEMPT_SCHEMA
