"""How a candidate behaves, beside a champion that is as good as it ever was."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Behaviour:
    """
    click_factor: on the chance of a click. error_rate: share of calls that fail. latency_factor: on every latency.
    biased_country, biased_factor: clicks of one segment alone. empty_country: gets slates without items.
    broken_country: its calls fail. dies_at_minute: after so much time with users every call fails; None: never.
    seen_by_shadow: faults show in the shadow step, too; else only with real users (another traffic, another load).
    """

    click_factor: float = 1.0
    error_rate: float = 0.0
    latency_factor: float = 1.0
    biased_country: str | None = None
    biased_factor: float = 1.0
    empty_country: str | None = None
    broken_country: str | None = None
    dies_at_minute: float | None = None
    seen_by_shadow: bool = False


SCENARIOS: Mapping[str, Behaviour] = {
    "better": Behaviour(click_factor=1.10),
    "equal": Behaviour(),
    "worse": Behaviour(click_factor=0.90),
    "failing": Behaviour(error_rate=0.02),
    "slow": Behaviour(latency_factor=3.0),
    "empty": Behaviour(empty_country="AT"),
    "broken": Behaviour(broken_country="AT"),
    "biased": Behaviour(biased_country="AT", biased_factor=0.5),
    "dying": Behaviour(dies_at_minute=5.0),
    "failing-in-shadow": Behaviour(error_rate=0.02, seen_by_shadow=True),
}
