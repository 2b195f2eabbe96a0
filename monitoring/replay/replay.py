"""The same answer again, from the log, the versions named in it and the Bento.

Lists that existed already (`batch`, `cached`, `popularity`) are no computation to be repeated: such an answer is what
was logged, and that is said.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from threadpoolctl import ThreadpoolController

from bentos.recommender.funnel import Funnel
from bentos.recommender.machine import machine
from contracts.errors import StreamRecError
from contracts.exposures import ContextRecord, States, Versions
from contracts.serving import DEGRADATIONS
from features.registry import REGISTRY
from monitoring.replay.rebuild import Gone, Rebuilder
from monitoring.replay.record import Logged
from monitoring.replay.run import Run, run
from monitoring.replay.stages import JsonMap, Stage, between, stages_of
from registry.artifacts import Kind

Verdict = Literal["same", "different", "inconclusive"]
TOLERANCE = 1e-5  # of scores, where another instruction set computes
LISTS = DEGRADATIONS[3:]
MOST_VERSIONS = 64  # of the live catalogue that came while an answer was made
_LIST = "the answer is the list that was logged ({})"


@dataclass(frozen=True, slots=True)
class Whole:
    """A record that names its versions."""

    record: ContextRecord
    versions: Versions
    states: States


@dataclass(frozen=True, slots=True)
class Held:
    """The flags that held while one answer was made."""

    rebuilder: Rebuilder
    funnel: Funnel
    states: States
    versions: range

    def set(self, version: int) -> None:
        self.rebuilder.flag(self.funnel, self.states, version)


@dataclass(frozen=True, slots=True)
class Replay:
    """how: `logged` for an answer that was a list. exact: bit for bit; None where nothing was computed.

    unlike: what is not as it was. slate: `item_id`, `score`, as logged. other: the answer of another Bento, its stages
    and the difference.
    """

    request_id: str
    verdict: Verdict
    why: str
    how: Literal["replayed", "logged"] = "replayed"
    exact: bool | None = None
    bento: str = ""
    degradation: str = ""
    slate: list[JsonMap] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    unlike: tuple[str, ...] = ()
    versions: Versions | None = None
    states: States | None = None
    other: JsonMap | None = None

    def document(self) -> JsonMap:
        parts: JsonMap = {name: getattr(self, name) for name in self.__slots__ if name not in ("versions", "states")}
        parts["stages"] = [stage.document() for stage in self.stages]
        for name in ("versions", "states"):
            part = getattr(self, name)
            parts[name] = None if part is None else msgspec.to_builtins(part)
        return parts


Folders = Callable[[str], tuple[str, Mapping[Kind, Path]]]
WhoIs = Callable[[str, "Rebuilder"], str | None]


class Replayer:
    """One home. Bentos are opened once. Not thread-safe."""

    def __init__(self, home: Path, folders: Folders, who: WhoIs = lambda key, rebuilder: key) -> None:
        """
        Args:
            folders: the full tag of a Bento and its bundles by kind; raises `StreamRecError` where it is gone.
            who: the user behind the key in a record, None where that cannot be told.
        """
        self._home = home
        self._folders = folders
        self._who = who
        self._threads = ThreadpoolController()
        self._opened: dict[tuple[str, bool], tuple[str, Rebuilder]] = {}

    def replay(self, logged: Logged, other: str | None = None) -> Replay:
        """other: tag of a Bento that is to be given the same request.

        Raises:
            StreamRecError: that other Bento is not there.
        """
        record = logged.context
        if record is None:
            return _without_context(logged)
        if record.versions is None or record.states is None:
            return Replay(logged.request_id, "inconclusive", "the record is of before records named their versions")
        whole = Whole(record, record.versions, record.states)
        found = Replay(
            logged.request_id,
            "inconclusive",
            "",
            bento=whole.versions.bento,
            degradation=record.degradation,
            slate=_slate(record.item_ids, record.scores),
            versions=whole.versions,
            states=whole.states,
        )
        if record.degradation in LISTS:
            return replace(found, verdict="same", why=_LIST.format(record.degradation), how="logged")
        try:
            _, rebuilder = self._open(whole.versions.bento)
            user_id = self._who(record.user_id, rebuilder)
        except StreamRecError as error:
            return replace(found, why=f"gone: {error.message}")
        if user_id is None:
            return replace(found, why="gone: the key that the user's id was hidden with is not here")
        found = replace(found, unlike=_unlike(whole, rebuilder))
        with self._threads.limit(limits=whole.states.threads, user_api="blas"):  # sums in the same order
            try:
                done, stages = self._again(whole, rebuilder, user_id)
            except (Gone, LookupError) as error:
                return replace(found, why=f"gone: {error}")
            verdict, exact, why = _judged(whole, done, stages, found.unlike)
            against = None if other is None else self._against(whole, other, user_id, stages)
        return replace(found, verdict=verdict, why=why, exact=exact, stages=stages, other=against)

    def close(self) -> None:
        for _, rebuilder in self._opened.values():
            rebuilder.close()

    def _open(self, tag: str, *, other: bool = False) -> tuple[str, Rebuilder]:
        if (tag, other) not in self._opened:
            full, folders = self._folders(tag)
            self._opened[tag, other] = full, Rebuilder(self._home, folders, other=other)
        return self._opened[tag, other]

    def _again(self, whole: Whole, rebuilder: Rebuilder, user_id: str) -> tuple[Run, list[Stage]]:
        states = whole.states
        funnel = rebuilder.funnel(states, whole.versions.rules)
        last = max(states.flags, min(states.flags_until, states.flags + MOST_VERSIONS))
        flags = Held(rebuilder, funnel, states, range(states.flags, last + 1))
        done = run(funnel, whole.record, user_id, flags)
        return done, stages_of(done, funnel.models.catalogue.item_ids, whole.record)

    def _against(self, whole: Whole, tag: str, user_id: str, named: list[Stage]) -> JsonMap:
        full, rebuilder = self._open(tag, other=True)
        funnel = rebuilder.funnel(whole.states, whole.versions.rules)
        done = run(funnel, whole.record, user_id)
        stages = stages_of(done, funnel.models.catalogue.item_ids, None)
        return {
            "bento": full,
            "slate": _slate(done.slate.item_ids, done.slate.scores),
            "degradation": done.slate.degradation,
            "stages": [stage.document() for stage in stages],
            "difference": between(named, stages),
        }


def _without_context(logged: Logged) -> Replay:
    exposure = logged.exposure or {}
    found = Replay(
        logged.request_id,
        "inconclusive",
        "gone: its context record was sampled away or dropped (log_contexts, streamrec_records); the exposure is there",
        how="logged",
        bento=exposure["versions"]["bento"],
        degradation=exposure["degradation"],
        slate=_slate(exposure["item_ids"], [None] * len(exposure["item_ids"])),
    )
    if exposure["degradation"] not in LISTS:
        return found
    return replace(found, verdict="same", why=_LIST.format(exposure["degradation"]))


def _slate(item_ids: Any, scores: Any) -> list[JsonMap]:
    return [{"item_id": item, "score": score} for item, score in zip(item_ids, scores, strict=True)]


def _same_slate(record: ContextRecord, done: Run) -> bool:
    return list(done.slate.item_ids) == record.item_ids and list(done.slate.scores) == record.scores


def _unlike(whole: Whole, rebuilder: Rebuilder) -> tuple[str, ...]:
    states, versions = whole.states, whole.versions
    found = []
    if states.machine != machine():
        found.append(f"computed on: {states.machine}; here: {machine()}")
    if versions.features != REGISTRY.hash:
        found.append(f"feature definitions {versions.features[:12]}; here: {REGISTRY.hash[:12]}")
    if (now := tuple(sorted(rebuilder.problems))) != states.missing:
        found.append(f"parts missing then: {', '.join(states.missing) or 'none'}; here: {', '.join(now) or 'none'}")
    if states.topology == "distributed":
        found.append("answered by runners in processes of their own, which may have been a moment ahead or behind")
    if (came := states.flags_until - states.flags) > MOST_VERSIONS:
        found.append(f"the live catalogue changed {came} times while it was made; the first {MOST_VERSIONS} are tried")
    return tuple(found)


def _judged(whole: Whole, done: Run, stages: list[Stage], unlike: tuple[str, ...]) -> tuple[Verdict, bool, str]:
    record = whole.record
    if _same_slate(record, done):
        apart = next((stage.stage for stage in stages if stage.same is False), None)
        return "same", True, "bit for bit" + (f", though {apart} is not as logged" if apart else "")
    where = next((stage.stage for stage in stages if stage.same is False), "rerank")
    elsewhere = whole.states.machine != machine()
    if elsewhere and list(done.slate.item_ids) == record.item_ids:
        gap = float(np.abs(np.subtract(done.slate.scores, record.scores)).max(initial=0))
        if gap <= TOLERANCE:
            return "same", False, f"another instruction set or library: scores apart by at most {gap:.1g}"
    if len(unlike) > elsewhere:  # more than the machine is not as it was
        return "inconclusive", False, f"it parts at {where}, and not everything is as it was"
    return "different", False, f"it parts at {where}"
