"""The context record of an answer, with the versions of all that it hung on."""

import logging
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from bentos.recommender import side_effects
from bentos.recommender.types import Slate
from bentos.recommender.upkeep import Upkeep
from bentos.telemetry.contexts import ContextLog
from bentos.telemetry.states import keep_rules
from contracts.exposures import States
from contracts.rules import RulesDocument
from contracts.settings import Settings

if TYPE_CHECKING:
    from bentos.recommender.runtime import Answer

log = logging.getLogger("streamrec.serving")
T = TypeVar("T")


class Recorder:
    """On the event loop. `states` when a request begins, `record` when it was answered."""

    def __init__(self, settings: Settings, contexts: ContextLog, upkeep: Upkeep) -> None:
        self._settings = settings
        self._contexts = contexts
        self._upkeep = upkeep
        self._made: tuple[States, int, tuple[str, int]] | None = None
        self._states = States()
        self._kept_rules: set[str] = set()

    def states(self) -> States:
        """As a request that begins now finds them; made anew only when something has changed."""
        upkeep = self._upkeep
        now = upkeep.states, upkeep.live.version, upkeep.funnel.stages.items.source
        if now != self._made:
            made, flags, (snapshot, n_items) = self._made = now
            self._states = msgspec.structs.replace(
                made,
                catalogue=upkeep.live.identity,
                flags=flags,
                snapshot=snapshot,
                snapshot_items=n_items,
                topology=self._settings.topology,
            )
        return self._states

    def states_of(self, slate: Slate, states: States) -> States:
        """Those of an answer that began with `states`, with what came while it was being made."""
        if slate.ranked is not None and slate.items_from != (states.snapshot, states.snapshot_items):
            snapshot, n_items = slate.items_from
            states = msgspec.structs.replace(states, snapshot=snapshot, snapshot_items=n_items)
        live = self._upkeep.live
        if live.coming != states.flags:  # of a file that may not have been there when the answer was begun
            states = msgspec.structs.replace(states, flags_until=live.coming, catalogue=live.identity)
        return states

    def record(self, answer: "Answer") -> None:
        """Hand the record to the log, if the sample has it. Shadows leave none: nobody saw their answer."""
        query, slate = answer.query, answer.slate
        if query.shadow or not self._contexts.keeps(query.request_id):
            return
        if answer.versions.rules not in self._kept_rules:
            self._kept_rules.add(answer.versions.rules)
            keep = partial(self._keep, answer.versions.rules, answer.funnel.rules)
            threading.Thread(target=keep, name="keep-rules", daemon=True).start()
        self._contexts.append(
            side_effects.context_record(
                query,
                slate,
                answer.exclude,
                versions=answer.versions,
                states=self.states_of(slate, answer.states),
                with_rows=self._contexts.keeps_rows(query.request_id),
                item_ids=answer.funnel.models.catalogue.item_ids,
                with_candidates=self._contexts.keeps_candidates(query.request_id),
            )
        )

    def _keep(self, digest: str, rules: RulesDocument) -> None:
        if not kept(keep_rules, self._settings.home, rules):
            self._kept_rules.discard(digest)  # to be tried again


def kept(keep: Callable[[Path, T], None], home: Path, what: T) -> bool:
    """A full disk costs a replay, not an answer."""
    try:
        keep(home, what)
    except OSError as error:
        log.warning("not kept for replays: %s", error)
        return False
    return True
