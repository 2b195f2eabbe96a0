"""The body of the `Retrieval` runner: sources that follow the live catalogue by themselves, in a process of their own.

Entry and runner each read the catalogue, and number its items alike. For a moment one knows more of them than the
other: rows that the other side does not know yet are left out, here and there.
"""

import logging
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.compose import FunnelConfig
from bentos.recommender.live import LiveCatalogue
from bentos.recommender.models import Models
from bentos.recommender.retrieval import Brought, Retrieval
from bentos.recommender.statistics import Statistics
from bentos.recommender.types import Query, SourceResult, User
from contracts.budgets import Plan
from contracts.rules import RulesDocument

log = logging.getLogger("streamrec.serving")
LOOK_S = 0.25


class FollowingRetrieval:
    """`retrieve` from any thread; `follow` in one."""

    def __init__(self, home: Path, models: Models, rules: RulesDocument, config: FunnelConfig) -> None:
        self._live = LiveCatalogue(home, models)
        self._statistics = Statistics(home)
        self._rules, self._config = rules, config
        self._stage = self._made(self._live.begin())
        self._n_items = len(self._live.models.catalogue)

    def start(self) -> None:
        """Follow from now on, in a thread that ends with the process."""
        threading.Thread(target=self._forever, name="catalogue", daemon=True).start()

    def rebase(self, base: Models) -> None:
        """Better models of the Bento itself, used from the next look on."""
        self._live.rebase(base)

    def follow(self) -> None:
        """Look once."""
        self._live.look()
        self._statistics.look()
        if self._statistics.behind or self._live.behind:
            models = self._live.rebuild() if self._live.behind else self._live.models
            made = self._statistics.apply(models, {}, {})
            stage = self._made(models if made is None else made.models)
            self._stage, self._n_items = stage, len(models.catalogue)
            self._live.adopt()

    def retrieve(self, names: tuple[str, ...], query: Query, user: User, limits: Plan) -> Brought:
        n = self._n_items  # read before the stage: that one may only know more
        return self._stage.retrieve(names, *known(query, user, n), limits=limits)

    def _made(self, models: Models) -> Retrieval:
        return Retrieval(models, self._rules, self._config)

    def _forever(self) -> None:
        pause = threading.Event()
        while not pause.wait(LOOK_S):
            try:
                self.follow()
            except Exception:
                log.exception("the live catalogue cannot be followed; the runner goes on with what it has")


def known(query: Query, user: User, n_items: int) -> tuple[Query, User]:
    """Both without rows of items from `n_items` on."""
    return (
        replace(query, exclude=_below(query.exclude, n_items)),
        replace(
            user,
            seen=_below(user.seen, n_items),
            history=_below(user.history, n_items),
            history_age_h=user.history_age_h[user.history < n_items],
            met=_below(user.met, n_items),
            met_at_us=user.met_at_us[user.met < n_items],
        ),
    )


def brought_within(brought: Brought, n_items: int) -> Brought:
    """What a runner brought, without rows of items from `n_items` on."""
    return {
        name: result
        if isinstance(result, str) or not len(result.items) or int(result.items.max()) < n_items
        else SourceResult(result.items[result.items < n_items], result.scores[result.items < n_items], result.vector)
        for name, result in brought.items()
    }


def _below(rows: NDArray[np.int32], n: int) -> NDArray[np.int32]:
    return rows if not len(rows) or int(rows.max()) < n else rows[rows < n]
