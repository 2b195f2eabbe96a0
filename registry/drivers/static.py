"""Bentos that someone else runs: `Settings.upstreams` says where they listen, and nothing is started or ended."""

from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from contracts.errors import UsageError
from contracts.routing import Upstream


class StaticDriver:
    """
    Args:
        upstreams: Bento tag → its URLs.

    Raises:
        UsageError: a Bento without a URL.
    """

    def __init__(self, upstreams: Mapping[str, Sequence[str]]) -> None:
        try:
            self._known = {tag: Upstream(urls=tuple(urls)) for tag, urls in upstreams.items()}
        except ValidationError as error:
            raise UsageError(
                f"settings: a Bento in `upstreams` needs 1 to 256 URLs: {error.errors()[0]['msg']}"
            ) from error
        self._wanted: tuple[str, ...] = ()

    def ensure(self, bentos: Sequence[str]) -> None:
        self._wanted = tuple(bentos)

    def upstreams(self) -> dict[str, Upstream]:
        return {tag: self._known[tag] for tag in self._wanted if tag in self._known}

    def problems(self) -> dict[str, str]:
        return {tag: f"`upstreams` in the settings has no {tag}" for tag in self._wanted if tag not in self._known}
