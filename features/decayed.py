"""An exponentially decayed sum as a state of two numbers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Decayed:
    """An exponentially decayed sum: `value` as it stood at `timestamp_us`."""

    value: float = 0.0
    timestamp_us: int = 0

    def at(self, now_us: int, half_life_us: float) -> float:
        return self.value * 2.0 ** (-(now_us - self.timestamp_us) / half_life_us)

    def add(self, weight: float, at_us: int, half_life_us: float) -> "Decayed":
        """Add `weight` that fell at `at_us`; a late one is decayed to the state's own time."""
        if at_us >= self.timestamp_us:
            return Decayed(self.at(at_us, half_life_us) + weight, at_us)
        late = weight * 2.0 ** (-(self.timestamp_us - at_us) / half_life_us)
        return Decayed(self.value + late, self.timestamp_us)
