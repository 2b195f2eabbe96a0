"""A running average of how long something takes, which one pause of the machine does not move far."""

WEIGHT = 0.05  # of the newest value
OUTLIER = 4.0  # times the average: more than that counts as that


def moved(average_s: float, newest_s: float) -> float:
    """The average after one more value. A process that was stopped for 20 s did not get slower; one that did is$
    believed within a few dozen values."""
    return average_s + WEIGHT * (min(newest_s, OUTLIER * average_s) - average_s)
