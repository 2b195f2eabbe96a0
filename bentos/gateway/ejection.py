"""When to leave one address out. Pure: the clock is an argument."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EjectionPolicy:
    """An address is left out after `consecutive` failures in a row, or one refused connection, for `base_s` times the
    number of ejections in a row, at most `max_s`."""

    consecutive: int = 3
    base_s: float = 1.0
    max_s: float = 10.0


class Ejection:
    """Of one address. Which of all are left out is the caller's to say: never the last one."""

    __slots__ = ("_bad_in_a_row", "_policy", "_times", "until")

    def __init__(self, policy: EjectionPolicy = EjectionPolicy()) -> None:
        self._policy = policy
        self._bad_in_a_row = 0
        self._times = 0
        self.until = 0.0

    def out(self, now: float) -> bool:
        return now < self.until

    def good(self) -> None:
        self._bad_in_a_row = self._times = 0
        self.until = 0.0

    def bad(self, now: float, *, dead: bool = False) -> None:
        """dead: nobody listens there, one is enough."""
        self._bad_in_a_row += 1
        if (dead or self._bad_in_a_row >= self._policy.consecutive) and not self.out(now):
            self._times += 1
            self._bad_in_a_row = 0
            self.until = now + min(self._policy.base_s * self._times, self._policy.max_s)
