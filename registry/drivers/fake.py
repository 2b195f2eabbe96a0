"""A driver for tests and simulations: every Bento is up at once, but those that were told to be missing."""

from collections.abc import Sequence

from contracts.errors import Unreachable
from contracts.routing import Upstream


class FakeDriver:
    """missing: Bentos that never come up. away: the supervisor does not answer. calls: all that `ensure` was asked."""

    def __init__(self) -> None:
        self.missing: set[str] = set()
        self.away = False
        self.up: tuple[str, ...] = ()
        self.calls: list[tuple[str, ...]] = []

    def ensure(self, bentos: Sequence[str]) -> None:
        if self.away:
            raise Unreachable("the supervisor does not answer")
        self.up = tuple(bentos)
        if not self.calls or self.calls[-1] != self.up:
            self.calls.append(self.up)

    def upstreams(self) -> dict[str, Upstream]:
        return {tag: Upstream(urls=(f"unix:/fake/{tag}.sock",)) for tag in self.up if tag not in self.missing}

    def problems(self) -> dict[str, str]:
        return {tag: f"{tag} was told not to come up" for tag in self.up if tag in self.missing}
