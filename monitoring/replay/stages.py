"""A run as words: each stage with its input and its output, beside what the log says of it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec
import numpy as np

from bentos.recommender.slates import ids_of
from contracts.exposures import ContextRecord, FeatureUsed
from features.registry import REGISTRY
from monitoring.replay.run import Run

JsonMap = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stage:
    """same: whether the output is what was logged; None: the log does not say. differences: in a few words."""

    stage: str
    input: JsonMap
    output: JsonMap
    same: bool | None = None
    differences: tuple[str, ...] = field(default=())

    def document(self) -> JsonMap:
        return asdict(self)


def stages_of(run: Run, item_ids: Sequence[str], logged: ContextRecord | None) -> list[Stage]:
    """In the order of the request path. logged None: another Bento, of whose stages nothing was logged."""

    def ids(rows: Any) -> list[str]:
        return list(ids_of(item_ids, rows))

    found = [_hydrate(run, ids, logged)]
    for name, result in run.brought.items():
        asked = {"user_known": run.user.row >= 0, "history": len(run.user.history)}
        output = {"item_ids": ids(result.items), "scores": result.scores.tolist()}
        then = None if logged is None else logged.candidates.get(name)
        scores = None if logged is None else logged.candidate_scores.get(name)
        found.append(_compared(f"source.{name}", asked, output, then, scores))
    found.append(Stage("merge", {n: len(r.items) for n, r in run.brought.items()}, {"candidates": run.union}))
    passed = ids(run.candidates.items)
    same = None
    if logged is not None and logged.ranked_item_ids:
        same = sorted(passed) == sorted(logged.ranked_item_ids)
    dropped = {"dropped": dict(run.dropped), "item_ids": passed}
    found.append(Stage("filter", {"candidates": run.union}, dropped, same))
    found.append(_rank(run, ids, logged))
    output = {
        "item_ids": list(run.slate.item_ids),
        "scores": list(run.slate.scores),
        "sources": [list(names) for names in run.slate.sources],
        "decisions": list(run.decisions),
        "degradation": run.slate.degradation,
    }
    asked = {"candidates": len(run.ranked), "k": run.query.k}
    then, scores = (None, None) if logged is None else (logged.item_ids, logged.scores)
    found.append(_compared("rerank", asked, output, then, scores))
    return found


def _compared(
    name: str, asked: JsonMap, output: JsonMap, then: Sequence[str] | None, scores: Sequence[float] | None
) -> Stage:
    """then, scores: as logged; None: not logged."""
    if then is None:
        return Stage(name, asked, output)
    now: list[str] = output["item_ids"]
    same = now == list(then) and (scores is None or list(scores) == output["scores"])
    return Stage(name, asked, output, same, () if same else _of_lists(then, now))


def _hydrate(run: Run, ids: Any, logged: ContextRecord | None) -> Stage:
    features = [msgspec.structs.asdict(used) for used in run.slate.used]
    output = {
        "user_known": run.user.row >= 0,
        "history": ids(run.user.history),
        "seen": len(run.user.seen),
        "stale": list(run.slate.stale),
        "features": features,
    }
    same: bool | None = None
    differences: tuple[str, ...] = ()
    if logged is not None:
        then, now = ({used.name: _comparable(used) for used in side} for side in (logged.features, run.slate.used))
        differences = tuple(sorted(name for name in then | now if then.get(name) != now.get(name)))
        same = not differences and list(run.slate.stale) == logged.stale
    state = run.state
    given = {
        "clock_us": run.query.now_us,
        "context": dict(run.query.context),
        "exclude": len(run.query.exclude),
        "interactions": [f"{i.item_id} {i.event}" for i in state.last],
    }
    return Stage("hydrate", given, output, same, differences)


def _comparable(used: FeatureUsed) -> tuple[Any, ...]:
    """A vector's checksum is that of a vector which the record does not have."""
    value = None if REGISTRY[used.name].dtype == "embedding" else msgspec.to_builtins(used.value)
    return value, used.age_s, used.source


def _rank(run: Run, ids: Any, logged: ContextRecord | None) -> Stage:
    ranked = ids(run.ranked.items)
    output = {
        "ranked_by": run.slate.ranked_by,
        "digest": run.slate.digest,
        "item_ids": ranked,
        "scores": run.ranked.score.tolist(),
    }
    rows = {"candidates": len(run.candidates), "columns": 0 if run.rows is None else run.rows.shape[1]}
    if logged is None:
        return Stage("rank", rows, output)
    same = run.slate.digest == logged.digest and run.slate.ranked_by == logged.ranked_by
    differences: tuple[str, ...] = ()
    if not same:
        top = ranked[: len(logged.top_item_ids)]
        differences = _of_lists(logged.top_item_ids, top)
        if top == logged.top_item_ids:
            apart = np.abs(run.ranked.score[: len(top)] - np.array(logged.top_scores, np.float32)).max(initial=0)
            differences = (f"scores of the first {len(top)} apart by at most {apart:.2g}",)
    return Stage("rank", rows, output, same, differences)


def between(one: Sequence[Stage], other: Sequence[Stage]) -> list[JsonMap]:
    """Stage by stage, what two runs have in common and what each alone has."""
    theirs: Mapping[str, Stage] = {stage.stage: stage for stage in other}
    names = [stage.stage for stage in one] + [s.stage for s in other if s.stage not in {m.stage for m in one}]
    mine: Mapping[str, Stage] = {stage.stage: stage for stage in one}
    return [_between(name, mine.get(name), theirs.get(name)) for name in names]


def _between(name: str, one: Stage | None, other: Stage | None) -> JsonMap:
    if one is None or other is None:
        return {"stage": name, "same": False, "missing_in": "named" if one is None else "other"}
    found: JsonMap = {"stage": name, "same": one.output == other.output}
    here, there = one.output.get("item_ids"), other.output.get("item_ids")
    if here is not None and there is not None:
        places = {item: place for place, item in enumerate(there)}
        found |= {
            "common": len(places.keys() & set(here)),
            "only_named": [item for item in here if item not in places],
            "only_other": [item for item in there if item not in set(here)],
            "moved": sum(1 for place, item in enumerate(here) if places.get(item, place) != place),
        }
    elif one.output != other.output:
        keys = one.output.keys() | other.output.keys()
        found["changed"] = sorted(key for key in keys if one.output.get(key) != other.output.get(key))
    return found


def _of_lists(then: Sequence[str], now: Sequence[str]) -> tuple[str, ...]:
    if list(then) == list(now):
        return ("the same items, other scores",)
    gone, come = [i for i in then if i not in set(now)], [i for i in now if i not in set(then)]
    if not gone and not come:
        return ("the same items in another order",)
    words = [f"{len(gone)} gone ({', '.join(gone[:3])})"] if gone else []
    return tuple(words + ([f"{len(come)} new ({', '.join(come[:3])})"] if come else []))
