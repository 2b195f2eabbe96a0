"""A stretch of the service's log, read once: for each ranker that served in it, a sample of one row a user.

Answers of another time than they can be of (after now), and what could not be read, are left out and said. They are
looked for behind the window's end too: a window that ends now would never meet them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bentos.telemetry.kinds import EXPOSURES
from contracts.errors import UsageError
from features.frame import FEATURES, REGISTERED, default_flag
from monitoring.drift.service.thinned import UNITS, OnePerUser
from monitoring.frames.log_files import LogFiles
from monitoring.frames.serving import Window

AHEAD_US = 5 * 60_000_000  # a clock may be so far ahead
AHEAD_SHARE = 0.01  # of the answers; above it the window lacks too much of what belongs in it
NO_RANKER = ""
COLUMNS = (
    "timestamp",
    "user_id",
    "item_id",
    "position",
    "score",
    *FEATURES,
    *(default_flag(name) for name in REGISTERED),
)


@dataclass(slots=True)
class Served:
    """Answers of one ranker in the window, of the same feature definitions. rows: shown items; sample: of those whose
    features were kept."""

    ranker: str
    feature_hash: str
    sample: OnePerUser
    rows: int = 0
    logged: int = 0
    first_us: int | None = None
    last_us: int | None = None
    bentos: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Gathered:
    since_us: int | None
    until_us: int | None
    parts: dict[tuple[str, str], Served] = field(default_factory=dict)  # by ranker and feature definitions
    answers: int = 0
    ahead: int = 0  # answers dated after now
    rows: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def doubt(self) -> str:
        """Why this window is not known to be whole, so that nothing found in it means little."""
        if self.ahead <= AHEAD_SHARE * (self.answers + self.ahead):
            return ""
        return f"clock skew: {self.ahead:,} answers are dated after now, {self.answers:,} lie in the window"

    @property
    def rankers(self) -> list[list[Served]]:
        """The parts of each ranker, most rows first; the ranker with most rows first."""
        by_ranker: dict[str, list[Served]] = {}
        for part in sorted(self.parts.values(), key=lambda p: -p.rows):
            by_ranker.setdefault(part.ranker, []).append(part)
        return sorted(by_ranker.values(), key=lambda parts: -sum(p.rows for p in parts))


def gather(
    home: Path,
    since_us: int | None,
    until_us: int | None,
    *,
    now_us: int,
    seed: int = 0,
    users: int = UNITS,
    columns: Sequence[str] = COLUMNS,
    apart: bool = True,
) -> Gathered:
    """
    Args:
        apart: a sample for each ranker; else one of all, for a season that other versions served too.
    """
    found = Gathered(since_us, until_us)
    latest_us = now_us + AHEAD_US
    window = Window.open(home, since_us, latest_us if until_us is None else min(until_us, latest_us))
    for batch in window.batches():
        found.rows += batch.num_rows
        for key, part in _parts(batch, apart):
            if key not in found.parts:
                found.parts[key] = Served(*key, OnePerUser(tuple(columns), seed, users))
            _take(found.parts[key], part)
    found.answers = window.answers
    found.problems = [*window.problems]
    found.ahead = _answers_after(home, latest_us)
    if found.ahead:
        found.problems.append(f"{found.ahead:,} answers are dated after now: a clock is ahead; they were left out")
    return found


def _answers_after(home: Path, moment_us: int) -> int:
    log = LogFiles.open(home, EXPOSURES, ("timestamp_us", "outcome"), moment_us, None)
    return sum(pc.sum(pc.equal(table["outcome"], "ok")).as_py() or 0 for table in log.tables())


def last_answers(home: Path, n: int, until_us: int | None = None) -> int:
    """The moment from which on there are about `n` answers (before `until_us`): exactly, but for those of one
    microsecond.

    Raises:
        UsageError: n < 1.
    """
    if n < 1:
        raise UsageError(f"the last {n} answers are none")
    log = LogFiles.open(home, EXPOSURES, ("timestamp_us", "outcome"), None, until_us)
    newest = sorted(log.pieces, key=lambda piece: -piece.last_us)
    together = np.cumsum([piece.rows for piece in newest])
    enough = newest[: int(np.searchsorted(together, n)) + 1]
    oldest = min((piece.first_us for piece in enough), default=0)
    # Processes write side by side: another piece may have some of the newest too.
    log.pieces = [piece for piece in newest if piece.last_us >= oldest]
    ordered = _stamps(log)
    return int(ordered[max(len(ordered) - n, 0)]) if len(ordered) else 0


def nth_answer(home: Path, n: int, since_us: int, until_us: int) -> int:
    """The moment before which there are about `n` answers from `since_us` on; `until_us` where there are fewer."""
    ordered = _stamps(LogFiles.open(home, EXPOSURES, ("timestamp_us", "outcome"), since_us, until_us))
    return int(ordered[n]) if len(ordered) > n else until_us


def _stamps(log: LogFiles) -> NDArray[np.int64]:
    """Moments of all answers, in order."""
    stamps = [table.filter(pc.equal(table["outcome"], "ok"))["timestamp_us"].to_numpy() for table in log.tables()]
    return np.sort(np.concatenate([np.empty(0, np.int64), *stamps]))


def _parts(batch: pa.Table, apart: bool) -> Iterator[tuple[tuple[str, str], pa.Table]]:
    if not apart:
        yield (NO_RANKER, ""), batch
        return
    rankers, hashes = (pc.fill_null(batch[name], "") for name in ("ranking", "feature_hash"))
    for pair in pa.table({"r": rankers, "h": hashes}).group_by(["r", "h"]).aggregate([]).to_pylist():
        mine = pc.and_(pc.equal(rankers, pair["r"]), pc.equal(hashes, pair["h"]))
        yield (pair["r"], pair["h"]), batch.filter(mine)


def _take(served: Served, part: pa.Table) -> None:
    if not part.num_rows:
        return
    served.rows += part.num_rows
    when = pc.min_max(pc.cast(part["timestamp"], pa.int64())).as_py()
    served.first_us = when["min"] if served.first_us is None else min(served.first_us, when["min"])
    served.last_us = when["max"] if served.last_us is None else max(served.last_us, when["max"])
    for pair in pc.value_counts(part["bento"]).to_pylist():
        served.bentos[pair["values"] or ""] += pair["counts"]
    logged = part.filter(part["logged"])
    served.logged += logged.num_rows
    served.sample.add(logged)
