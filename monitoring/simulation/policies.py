"""The policy of the simulated releases: that of the catalogue's `default`, with numbers that suit 50,000 users."""

import hashlib

from registry.releases.policy import Metric, Policy, Step
from registry.releases.values import PolicyText

_WITH_USERS = ("error_rate", "latency_over", "empty", "ctr")
_RAMP = ((1.0, 10.0, 100), (5.0, 30.0, 1_000), (25.0, 60.0, 10_000))  # weight, least minutes, least samples

SIMULATED = Policy(
    name="simulated",
    version="1",
    description="default, for 50,000 users with 10 visits a day",
    evidence="any",
    metrics=(
        Metric(name="shadow_errors", kind="error_rate", direction="lower", critical=True, limit=0.005),
        Metric(name="shadow_slow", kind="latency_over", limit_ms=100, direction="lower", limit=0.01),
        Metric(name="correlation", kind="score_correlation", direction="higher", limit=0.5),
        Metric(name="schema", kind="schema", direction="lower", limit=0.001),
        Metric(name="overlap", kind="overlap", direction="higher", role="report"),
        Metric(name="error_rate", kind="error_rate", direction="lower", critical=True, limit=0.005),
        Metric(name="latency_over", kind="latency_over", limit_ms=100, direction="lower", critical=True, limit=0.01),
        Metric(
            name="empty", kind="empty", direction="lower", critical=True, limit=0.01, slices=("country",),
            slice_least_units=20,
        ),
        Metric(
            name="ctr", kind="ctr", direction="higher", critical=True, margin=0.10, relative=True, weight=2.6667,
            slices=("country",),
        ),
    ),
    steps=(
        Step(
            kind="shadow", weight=100, metrics=("shadow_errors", "shadow_slow", "correlation", "schema", "overlap"),
            least_minutes=10, least_samples=5_000, panel={"new_user": 20},
        ),
        *(
            Step(kind="canary", weight=w, metrics=_WITH_USERS, least_minutes=m, least_samples=n, deadline_minutes=4_320)
            for w, m, n in _RAMP
        ),
        Step(
            kind="canary", weight=50, metrics=_WITH_USERS, least_minutes=240, least_samples=50_000, prove=True,
            deadline_minutes=10_080,
        ),
        Step(kind="canary", weight=100, metrics=_WITH_USERS[:3], least_minutes=60, least_samples=10_000),
    ),
)  # fmt: skip


def text_of(policy: Policy) -> PolicyText:
    """A policy that is code has its JSON for a text."""
    text = policy.model_dump_json()
    digest = hashlib.sha256(text.encode()).hexdigest()
    return PolicyText(name=policy.name, version=policy.version, sha256=digest, text=text)
