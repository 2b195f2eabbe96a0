"""Cold start as it happens in the test window: people without a wish before the cut, asked as they come.

They are those whom the protocol leaves out. Who was shown things and wished for none is one of them: `context alone`
leaves that out, the session has it.

Once with their context alone, at their first wish, and once after three of them, as the session then is. Lines of one
invoice have one moment: whatever was taken up by the moment of the third wish is past, in every setup. U users.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bentos.recommender.funnel import Funnel
from contracts.dataset import DatasetConfig
from features.labels import LabelRule
from features.offline import users as user_features
from features.offline.log import open_log
from features.online.base import Stamped, UserState
from training.data import read
from training.evaluate import SLATE, ask
from training.evaluation import metrics
from training.evaluation.metrics import Estimate, Targets
from training.interactions import Log

AFTER = 3  # wishes of a session
MOST_USERS = 150
CONTEXT_COLUMNS = ("country", "device")
METRICS = ("ndcg@10", "recall@10", "hit@10")


@dataclass(frozen=True, slots=True)
class ColdUsers:
    """setups: how they were asked → metric → estimate over the users of that setup. found: new users in the window."""

    found: int
    setups: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        return {
            "new_users": self.found,
            "setups": {
                name: {m: {"value": _finite(e.value), "se": _finite(e.se), "n": e.n} for m, e in estimates.items()}
                for name, estimates in self.setups.items()
            },
        }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class _Newcomer:
    """wishes: (moment, item id), in order, each item once."""

    user_id: str
    wishes: Sequence[tuple[int, str]]
    context: Mapping[str, str]

    def by(self, moment_us: int) -> int:
        """How many of the wishes had happened by then."""
        return sum(at <= moment_us for at, _ in self.wishes)


def cold_users(
    folder: Path,
    config: DatasetConfig,
    log: Log,
    funnel: Funnel,
    popular: NDArray[np.int64],
    from_us: int,
    to_us: int,
    *,
    seed: int,
    most_users: int = MOST_USERS,
) -> ColdUsers:
    """popular: catalogue rows, the most popular first: what everybody would get without any of this. most_users: of
    the newcomers, drawn by the seed."""
    newcomers = _newcomers(folder, config, log, from_us, to_us)
    if len(newcomers) > most_users:
        chosen = np.random.default_rng(seed).choice(len(newcomers), most_users, replace=False)
        some = [newcomers[at] for at in np.sort(chosen).tolist()]
    else:
        some = newcomers
    if not some:
        return ColdUsers(0)
    index = funnel.models.index
    thirds = [(one, one.wishes[AFTER - 1][0]) for one in some if len(one.wishes) > AFTER]
    longer = [(one, third) for one, third in thirds if one.by(third) < len(one.wishes)]
    first = [one.wishes[0][0] for one in some]
    unknown = [UserState(one.user_id) for one in some]
    setups = {
        "context alone": _asked(funnel, some, unknown, first, [0] * len(some)),
        "popularity": _scored([popular] * len(some), some, index, [0] * len(some)),
    }
    if longer:
        people = [one for one, _ in longer]
        met = [one.by(third) for one, third in longer]
        moments = [third + 1 for _, third in longer]
        states = _states(folder, [one.user_id for one in people], moments)
        blank = [UserState(one.user_id) for one in people]
        setups[f"after {AFTER} wishes, session unknown"] = _asked(funnel, people, blank, moments, met)
        setups[f"after {AFTER} wishes, with the session"] = _asked(funnel, people, states, moments, met)
        setups[f"after {AFTER} wishes, popularity"] = _scored([popular] * len(people), people, index, met)
    return ColdUsers(len(newcomers), setups)


def _newcomers(folder: Path, config: DatasetConfig, log: Log, from_us: int, to_us: int) -> list[_Newcomer]:
    names = set(read.schema(folder / "interactions.parquet").names)
    given = [name for name in CONTEXT_COLUMNS if name in names]
    columns = ["user_id", "item_id", "timestamp", "event", *(["value"] if "value" in names else []), *given]
    table = read.interactions(folder, columns, since_us=from_us, until_us=to_us)
    wished = [log.user_ids[user] for user in np.unique(log.positives().user).tolist()]
    table = table.filter(pc.invert(pc.is_in(table["user_id"], value_set=pa.array(wished, pa.string()))))
    mask = LabelRule.of(config).mask(table["event"], table["value"] if "value" in names else None)
    table = table.filter(mask).sort_by("timestamp")
    people = read.users(folder)
    known: dict[str, dict[str, str]] = {}
    if people is not None:
        told = [name for name in CONTEXT_COLUMNS if name in people.column_names and name not in given]
        new = people.filter(pc.is_in(people["user_id"], value_set=pc.unique(table["user_id"])))
        for row in new.select(["user_id", *told]).to_pylist():
            known[row["user_id"]] = {name: str(row[name]) for name in told if row[name] is not None}
    wishes: dict[str, list[tuple[int, str]]] = {}
    contexts: dict[str, dict[str, str]] = {}
    stamps = table["timestamp"].cast("int64").to_pylist()
    for row, moment in zip(table.to_pylist(), stamps, strict=True):
        mine = wishes.setdefault(row["user_id"], [])
        if not any(item == row["item_id"] for _, item in mine):
            mine.append((moment, row["item_id"]))
        if row["user_id"] not in contexts:
            told_here = {name: str(row[name]) for name in given if row[name] is not None}
            contexts[row["user_id"]] = known.get(row["user_id"], {}) | told_here
    return [_Newcomer(name, items, contexts[name]) for name, items in wishes.items()]


def _states(folder: Path, ids: Sequence[str], moments: Sequence[int]) -> list[UserState]:
    """Each at a moment of its own, from the events before it."""
    with open_log(folder, user_ids=list(ids)) as log:
        batch = user_features.batch_features(log, ids, moments)
        last = user_features.last_interactions(log, ids, moments)
    return [
        UserState(name, {key: Stamped(value, at) for key, value in features.items()}, recent, None, at)
        for name, at, features, recent in zip(ids, moments, batch, last, strict=True)
    ]


def _asked(
    funnel: Funnel, people: Sequence[_Newcomer], states: Sequence[UserState], moments: Sequence[int], met: Sequence[int]
) -> dict[str, Estimate]:
    """met: so many wishes of each are past: neither to be shown nor to be found."""
    index = funnel.models.index
    answers = []
    for one, state, moment, n in zip(people, states, moments, met, strict=True):
        past = index.lookup_many([item for _, item in one.wishes[:n]])
        slate = funnel.run(ask(one.user_id, moment, past[past >= 0], one.context), state)
        answers.append(index.lookup_many(slate.item_ids).astype(np.int64))
    return _scored(answers, people, index, met)


def _scored(
    answers: Sequence[NDArray[np.int64]], people: Sequence[_Newcomer], index: Any, met: Sequence[int]
) -> dict[str, Estimate]:
    lists, users, targets = [], [], []
    for at, (one, answer, n) in enumerate(zip(people, answers, met, strict=True)):
        past = index.lookup_many([item for _, item in one.wishes[:n]])
        lists.append(answer[~np.isin(answer, past)][:SLATE])
        for place, (_, item) in enumerate(one.wishes[n:]):
            row = int(index.lookup_many([item])[0])
            users.append(at)
            targets.append(row if row >= 0 else len(index) + n + place)  # nobody can hit it, each is one of its own
    wanted = Targets.of(np.array(users, np.int64), np.array(targets, np.int64), len(people))
    found = metrics.per_user(metrics.pad(lists, SLATE), wanted)
    return {name: Estimate.of(found[name]) for name in METRICS}
