"""Some answers with what they were made of: whose features the offline join is asked for."""

import heapq
import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bentos.telemetry.kinds import CONTEXTS
from contracts.user_keys import UserKeys
from features.frame import SCHEMA
from features.ranking import ITEM_COUNTS, ITEM_RATES
from monitoring.frames.log_files import LogFiles
from monitoring.skew.rows import HOUR_US, Logged

_COLUMNS = ("request_id", "timestamp_us", "clock_us", "user_id", "features", "shown", "versions", "states")
_HIDDEN = re.compile(r"k\d+\.[a-z2-7]{26}")  # contracts/user_keys.py
# What a stream carries on once it has counted something (features/refreshed.py): then it is no join of the log.
_LIVE = ("item_trending_score", "item_ctr_7d", "item_completion_rate_7d")


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer. features: name → (value, age in seconds, source). items, rows: the first that were shown, and what
    the ranker read of them, float32 [n, F]."""

    request_id: str
    user_id: str
    at_us: int
    clock_us: int
    features: Mapping[str, tuple[Any, float | None, str]]
    items: tuple[str, ...]
    rows: NDArray[np.float32]
    live: bool = False  # a stream's counts were laid over the snapshot of item features

    def user_value(self, name: str) -> Logged | None:
        """None where the record says nothing of the feature."""
        said = self.features.get(name)
        return None if said is None else Logged(self.request_id, self.user_id, self.clock_us, *said)

    def interactions(self, name: str) -> Logged | None:
        """The stream goes by the wall clock, also where a data set's log ended long ago."""
        said = self.features.get(name)
        if said is None:
            return None
        moment = self.clock_us if abs(self.at_us - self.clock_us) < HOUR_US else self.at_us
        return Logged(self.request_id, self.user_id, moment, *said)

    def item_values(self, name: str) -> list[Logged]:
        """Of every item that was shown. Empty where the record says nothing, or the value is the stream's."""
        said = self.features.get(name)
        if said is None or (name in _LIVE and self.live):
            return []
        _, age_s, source = said
        logged = np.expm1(self._column(f"log_{name}")) if name in ITEM_COUNTS else self._column(name)
        return [
            Logged(self.request_id, item, self.clock_us, value, age_s, source)
            for item, value in zip(self.items, logged.tolist(), strict=True)
        ]

    def _column(self, name: str) -> NDArray[np.float64]:
        return self.rows[:, SCHEMA.at(name)].astype(np.float64)


ITEM_FEATURES = (*ITEM_COUNTS, *ITEM_RATES)


def sample(
    home: Path, ranking: str, *, since_us: int | None, until_us: int | None, n: int, seed: int
) -> tuple[list[Answered], list[str]]:
    """`n` answers of the ranker with a context record, the same for the same seed, in the order of their moments; and
    what could not be read. A record of before versions were kept counts as the ranker's."""
    log = LogFiles.open(home, CONTEXTS, _COLUMNS, since_us, until_us)
    # A heap of the smallest hashes: memory for n records, whatever the window holds.
    kept: list[tuple[int, str, dict[str, Any]]] = []
    for table in log.tables():
        ids, versions = table["request_id"].to_pylist(), table["versions"].to_pylist()
        for at, (id_, said) in enumerate(zip(ids, versions, strict=True)):
            if said is not None and said["ranking"] != ranking:
                continue
            key = -zlib.crc32(f"{seed} {id_}".encode())
            if len(kept) < n:
                heapq.heappush(kept, (key, id_, table.slice(at, 1).to_pylist()[0]))
            elif key > kept[0][0]:
                heapq.heapreplace(kept, (key, id_, table.slice(at, 1).to_pylist()[0]))
    answers = [_answered(row) for _, _, row in kept]
    return sorted(answers, key=lambda a: (a.clock_us, a.request_id)), log.problems


def named(answers: Sequence[Answered], users: Iterable[str], keys: UserKeys | None) -> tuple[list[Answered], int]:
    """The answers under the users' own ids, which a log may hide by key; and how many stay hidden, which no join can
    find: they are of users whom neither the data nor the event log has, or of a key that is not at hand."""
    known = {} if keys is None else keys.known(users)
    found = [replace(answer, user_id=known.get(answer.user_id, answer.user_id)) for answer in answers]
    clear = [answer for answer in found if not _HIDDEN.fullmatch(answer.user_id)]
    return clear, len(found) - len(clear)


def _answered(row: Mapping[str, Any]) -> Answered:
    shown = row["shown"]
    width = len(SCHEMA.columns)
    items: tuple[str, ...] = ()
    rows = np.empty((0, width), np.float32)
    if (
        shown is not None
        and SCHEMA.signature.startswith(shown["signature"] or "-")
        and len(shown["rows"]) == len(shown["item_ids"]) * width * 4
    ):
        items = tuple(shown["item_ids"])
        rows = np.frombuffer(shown["rows"], "<f4").reshape(-1, width)
    features = {f["name"]: (json.loads(f["value"]), f["age_s"], f["source"]) for f in row["features"]}
    live = row["states"] is None or row["states"]["counts"] != 0
    return Answered(
        row["request_id"], row["user_id"], row["timestamp_us"], row["clock_us"], features, items, rows, live
    )
