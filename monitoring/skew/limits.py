"""What counts as skew. One value a measure, so that an operator can say them (`contracts/settings.py`)."""

from dataclasses import dataclass

from contracts.settings import Settings

LEAST_USERS = 10  # fewer say nothing of a population, however many rows they have


@dataclass(frozen=True, slots=True)
class Limits:
    """mean: shift in training standard deviations; deviation: smaller / larger of the two deviations, a floor; missing:
    difference of the shares of rows without a value, and share of words that training never met; rows: share of logged
    values that may differ from the offline join."""

    mean: float = 0.5
    deviation: float = 0.5
    missing: float = 0.05
    rows: float = 0.01

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        return cls(settings.skew_mean, settings.skew_deviation, settings.skew_missing, settings.skew_rows)
