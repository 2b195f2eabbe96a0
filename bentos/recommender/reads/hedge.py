"""When to ask a second replica: after what 95 % of reads take, and only so often."""

from collections import deque

WINDOW = 128  # the last reads that the estimate is made of
LEAST = 32  # before so many nothing is known, and nothing hedged
EVERY = 16  # reads between two looks at the window


class P95:
    """The 95th percentile of the last reads, seconds. A read that was cut short counts with the time it had."""

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=WINDOW)
        self._until_look = LEAST
        self.seconds: float | None = None

    def add(self, seconds: float) -> None:
        self._last.append(seconds)
        self._until_look -= 1
        if self._until_look <= 0:
            self._until_look = EVERY
            self.seconds = sorted(self._last)[int(0.95 * (len(self._last) - 1))]


class HedgeBudget:
    """At most `share` of the reads are doubled, `burst` of them in a row: a store that is slow for all is not asked
    for twice as much."""

    def __init__(self, share: float = 0.1, burst: float = 5.0) -> None:
        self._share = share
        self._burst = burst
        self._saved = 1.0

    def earn(self) -> None:
        """A read has begun."""
        self._saved = min(self._burst, self._saved + self._share)

    def take(self) -> bool:
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True
