"""Who runs the Bentos. `local`: processes under `streamrec up`; `static`: URLs that someone else runs."""

from collections.abc import Sequence
from typing import Protocol

from contracts.routing import Upstream


class Driver(Protocol):
    def ensure(self, bentos: Sequence[str]) -> None:
        """Bring these Bentos up and end all others; returns at once. Called again and again, with the same answer.

        Raises:
            Unreachable: the supervisor does not answer.
        """

    def upstreams(self) -> dict[str, Upstream]:
        """Where each Bento that should be up listens, ready or not; the caller asks `/readyz`."""

    def problems(self) -> dict[str, str]:
        """Bento → why it is not up (not built here, it ends at once, …)."""
