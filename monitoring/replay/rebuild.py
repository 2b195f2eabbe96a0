"""The funnel of an answer, as it stood: the Bento's models, the live catalogue, item features and counts of then."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from bentos.catalogue.overlay import overlaid, set_flags, with_own_flags
from bentos.catalogue.store import CatalogueReader
from bentos.recommender.assemble import load_models
from bentos.recommender.compose import FunnelConfig
from bentos.recommender.device import CPU
from bentos.recommender.funnel import Funnel
from bentos.recommender.models import Models
from bentos.recommender.statistics import applied
from bentos.telemetry.states import kept_counts, kept_rules, kept_snapshot
from contracts.errors import NotFound
from contracts.exposures import States
from contracts.live_items import ItemState
from contracts.rules import RulesDocument
from features.online.base import ItemSnapshot
from registry.artifacts import Kind

REMEMBERED = 4
REMEMBERED_CATALOGUES = 32


class Gone(NotFound):
    """A version that the answer hung on cannot be had any more; the message says which."""


class Rebuilder:
    """Funnels of one Bento as they stood, by the states that are named, or over another Bento as it would have stood.
    The last few are kept, as neighbouring requests want the same.

    Not thread-safe: flags are set in place.
    """

    def __init__(self, home: Path, folders: Mapping[Kind, Path], *, other: bool = False) -> None:
        """other: not the Bento that answered, so that what was known of items when is nothing to it."""
        self._home = home
        self._other = other
        self._base = load_models(folders, providers=(CPU,))
        self._reader = CatalogueReader(home)
        self._rebuilt: dict[States, Funnel] = {}
        self._catalogues: dict[tuple[str, int], dict[str, ItemState]] = {}
        self._rules: dict[str, RulesDocument] = {}

    @property
    def problems(self) -> Mapping[str, str]:
        """Part → why it could not be loaded."""
        return self._base.problems

    @property
    def users(self) -> Sequence[str]:
        """Whom the models know."""
        retrieval = self._base.retrieval
        return [] if retrieval is None else retrieval.users.ids_of(np.arange(len(retrieval.users)))

    def funnel(self, states: States, rules: str) -> Funnel:
        """As it stood when the request began, under the rules of that digest.

        Raises:
            Gone: one of the versions cannot be had.
            Unreachable: a file is there and cannot be read.
        """
        document = self._document(rules)
        key = msgspec.structs.replace(states, flags=0, flags_until=0)
        funnel = self._rebuilt.pop(key, None) or self._rebuild(states)
        self._rebuilt[key] = funnel  # the last one used is the last
        if len(self._rebuilt) > REMEMBERED:
            del self._rebuilt[next(iter(self._rebuilt))]
        self.flag(funnel, states, states.flags)
        return funnel.under(document)

    def flag(self, funnel: Funnel, states: States, version: int) -> None:
        """Set the flags of that version of the catalogue.

        Raises:
            Gone: they cannot be had.
        """
        own, catalogue = self._base.catalogue.is_flagged, funnel.models.catalogue
        catalogue.flags.now = np.concatenate([own, np.zeros(len(catalogue) - len(own), np.bool_)])
        set_flags(catalogue, own, self._catalogue(states.catalogue, version).values())

    def close(self) -> None:
        self._reader.close()

    def _rebuild(self, states: States) -> Funnel:
        """As bentos/recommender/upkeep.py made it, in the same order."""
        models = with_own_flags(self._base)
        if states.facts:
            models = overlaid(self._base, self._catalogue(states.catalogue, states.facts), states.facts_us)
        funnel = Funnel(models, None, config=FunnelConfig())
        set_now = (states.snapshot, states.snapshot_items)
        set_then = (states.counts_snapshot, states.counts_items) if states.counts else set_now
        self._set(funnel, *set_then)
        if states.counts:
            counts = kept_counts(self._home, states.counts)
            if counts is None:
                raise Gone(f"item counts of {states.counts} (states_mb says how many are kept)")
            made = applied(counts, models, *funnel.stages.items.snapshot, states.counts_us)
            if made is not None:
                funnel = funnel.over(made.models, made.columns, made.moment_us)
        if set_now != set_then:
            self._set(funnel, *set_now)
        return funnel

    def _set(self, funnel: Funnel, version: str, n_items: int) -> None:
        if not version:
            return
        snapshot = kept_snapshot(self._home, version)
        if snapshot is None:
            raise Gone(f"item features of version {version}")
        funnel.set_items(snapshot if self._other else _known(snapshot, funnel.models, n_items))

    def _catalogue(self, identity: str, version: int) -> dict[str, ItemState]:
        if not identity or not version:
            return {}
        key = (identity, version)
        if key not in self._catalogues:
            found = self._reader.at(identity, version)
            if found is None:
                raise Gone(f"the live catalogue {identity} at version {version}")
            self._catalogues[key] = found
            if len(self._catalogues) > REMEMBERED_CATALOGUES:
                del self._catalogues[next(iter(self._catalogues))]
        return self._catalogues[key]

    def _document(self, digest: str) -> RulesDocument:
        if digest not in self._rules:
            document = kept_rules(self._home, digest)
            if document is None:
                raise Gone(f"rules document {digest}")
            self._rules[digest] = document
        return self._rules[digest]


def _known(snapshot: ItemSnapshot, models: Models, n_items: int) -> ItemSnapshot:
    """Without items that were not in the catalogue yet when it was read."""
    known = np.flatnonzero(models.index.lookup_many(list(snapshot.item_ids)) < n_items)
    if len(known) == len(snapshot.item_ids):
        return snapshot
    columns = {name: column[known] for name, column in snapshot.columns.items()}
    return ItemSnapshot(snapshot.version, [snapshot.item_ids[at] for at in known], columns, snapshot.timestamps_us)
